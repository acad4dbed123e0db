"""Everything about one clip in words, and what a run has done and left to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from captioners.mentions import one_line
from curation.captioning.kept import NOT_YET
from curation.decide import COPY
from curation.folder import Folder
from curation.job import receipts
from curation.recipe import Recipe, columns_of
from filters.rules import Rule, passes
from manifests.media.container import base_name
from manifests.schema import IDENTITY


def why(folder: Folder, clip: str) -> Iterator[str]:
    """Lines of text about one clip; `clip` is its id or the beginning of it.

    Raises ValueError when no clip, or more than one, has it.
    """
    found = folder.clip(clip)
    row = found.to_pylist()[0]
    yield f"{row['clip_id']}"
    yield f"  {row['uri']}"
    yield (
        f"  {row['start_us'] / 1e6:.3f} s to {row['end_us'] / 1e6:.3f} s ({row['duration_s']:.2f} s), "
        f"frames {row['start_frame']} to {row['end_frame'] - 1}, {row['width']}x{row['height']} at {row['fps']:.3g} fps"
    )
    yield ""
    yield f"verdict: {_verdict(row)}"
    yield ""
    yield "rules:"
    yield from (f"  {line}" for line in _rules(found, row, folder.recipe))
    yield ""
    yield "signals:"
    own = set(IDENTITY.names)
    measured = [
        f
        for f in [*folder.recipe.walk_schema, *folder.recipe.costly_schema, *folder.recipe.derived_schema]
        if f.name in row and f.name not in own
    ]
    for field in measured:
        said = {k.decode(): v.decode() for k, v in (field.metadata or {}).items()}
        yield f"  {field.name:<26} {_show(row[field.name]):<22} {said.get('doc', '')} {_unit(said)}".rstrip()
    if row["measure_error"]:
        yield f"  not measured: {row['measure_error']}"
    if row["caption"]:
        yield ""
        yield f"caption ({row['caption_model']}): {row['caption']}"
    yield from _checks(row)


def _checks(row: dict[str, Any]) -> Iterator[str]:
    if row.get("dsg_sentences") is None:
        if row.get("dsg_error"):
            yield f"  not checked: {one_line(row['dsg_error'])}"
        return
    named, false = len(row["dsg_objects"]), row["dsg_hallucinated"]
    yield f"  checked by {row['dsg_model']}: {named - len(false)} of {named} objects seen in {row['dsg_frames']} frames"
    if false:
        yield f"  in no frame: {one_line(', '.join(false))}"
    if row["caption_repaired"]:
        yield f"  before repair: {one_line(row['dsg_caption'])}"
    elif row["dsg_repair_error"]:
        yield f"  not repaired: {one_line(row['dsg_repair_error'])}"


def _verdict(row: dict[str, Any]) -> str:
    if row["copy_of"]:
        like = f"a copy of {row['copy_of']} (agreement {row['copy_similarity']:.2f})"
        return f"rejected, {like}; fails {', '.join(row['failed_rules'])}"
    if not row["kept"]:
        return f"rejected, fails {', '.join(row['failed_rules'])}"
    drawn = "drawn" if row["sampled"] else "not drawn"
    chance = f"chance {row['sample_probability']:.2f} in concept {row['concept']} of {row['concept_size']} clips"
    return f"kept; {drawn} for training ({chance})"


def _rules(found: pa.Table, row: dict[str, Any], recipe: Recipe) -> Iterator[str]:
    for rule in recipe.rules:
        ok = passes(rule, found).to_pylist()[0]
        values = ", ".join(f"{c} = {_show(row[c])}" for c in sorted(columns_of(rule)) if c in row)
        yield f"{_mark(rule, row, ok):<8} {rule.name:<16} {rule!s:<36} {values}"
    ok = COPY not in row["failed_rules"]
    yield f"{'passes' if ok else 'FAILS':<8} {COPY:<16} agreement < {recipe.copies.share:g}"


def _mark(rule: Rule, row: dict[str, Any], ok: bool) -> str:
    if ok:
        return "passes"
    return "FAILS" if rule.name in row["failed_rules"] else "skipped"


def _show(value: Any) -> str:
    if value is None:
        return "not measured"
    if isinstance(value, float):
        return f"{value:.4g}"
    return one_line(", ".join(map(str, value)) if isinstance(value, list) else str(value))


def _unit(said: dict[str, str]) -> str:
    facts = [said[k] for k in ("unit", "range") if k in said]
    return f"[{', '.join(facts)}]" if facts else ""


def status(folder: Folder) -> Iterator[str]:
    """Lines of text: what each stage did, and what went wrong."""
    made = folder.made
    yield f"recipe {made['recipe']} {' '.join(made['set'])}, finished {made['finished']}"
    for name, stage in made["stages"].items():
        done = receipts(folder.store, stage).values()
        seconds = sum(r.seconds for r in done)
        yield f"{name:<8} {len(done)} parts, {sum(r.rows for r in done)} clips, {seconds:.1f} worker seconds ({stage})"
    if "captions" in made:
        yield _captions(folder, made["captions"])
    yield ", ".join(f"{count} {name}" for name, count in made["counts"].items())
    videos = folder.videos.to_pylist()
    yield ", ".join(f"{n} {s}" for s, n in sorted(Counter(v["status"] for v in videos).items()))
    for video in videos:
        if video["status"] != "ok":
            yield f"  {video['status']}: {base_name(video['uri'])}: {_without_name(video)}"


def _captions(folder: Folder, last: dict[str, Any]) -> str:
    """What models said of the kept clips, and what the last asking took."""
    clips = folder.store.read_table("clips.parquet", ["caption", "caption_error"], pc.field("kept"))
    there = clips.num_rows - clips["caption"].null_count
    waiting = pc.sum(pc.equal(clips["caption_error"], NOT_YET)).as_py() or 0
    return (
        f"caption  {there} of {clips.num_rows} kept clips, {waiting} not asked about yet; the last time "
        f"{last['requests']} requests ({last['retries']} repeated), {last['prompt_tokens']} tokens read, "
        f"{last['completion_tokens']} written"
    )


def _without_name(video: dict[str, Any]) -> str:
    return str(video["error"]).removeprefix(f"{base_name(video['uri'])}: ")
