"""Hands the selected clips over to other tools: files, WebDataset shards, or one JSON object a line."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from curation.captioning.export import FORMATS as LESSONS
from curation.captioning.export import export_lessons
from curation.folder import Folder
from manifests.media.cut import cut
from manifests.reviews import as_reviewed
from manifests.types import MediaError

FORMATS = ("webdataset", "clips", "jsonl", *LESSONS)
PER_SHARD = 500

Row = dict[str, Any]
Said = Callable[[str], None]


def export(
    folder: Folder,
    kind: str,
    to: Path,
    which: str = "sampled",
    short: int = 0,
    crop: bool = True,
    say: Said = print,
) -> int:
    """Writes the clips for which the column `which` (sampled or kept) is true; returns how many.

    clips:      `<clip_id>.mp4`, `<clip_id>.txt` with the caption, and metadata.jsonl
    webdataset: shard-00000.tar and so on, with the same three per clip (mp4, txt, json)
    jsonl:      clips.jsonl with all columns and no footage
    sharegpt, llava, summaries: see `curation.captioning.export`
    short: short side to scale down to, 0 for the film's own. crop: borders are cut off, as that column says.
    Clips that cannot be encoded are named through `say` and left out. Raises ValueError for wrong use.
    """
    if kind not in FORMATS:
        raise ValueError(f"--format {kind}: choose from {', '.join(FORMATS)}.")
    if which not in ("sampled", "kept"):
        raise ValueError(f"--which {which}: choose sampled or kept.")
    if kind in LESSONS:
        return export_lessons(folder, kind, to, which)
    rows = as_reviewed(folder.store.read_table("clips.parquet", where=pc.field(which))).to_pylist()
    if not rows:
        raise ValueError(f"{folder.store.root}: no clip is {which}; loosen the rules with `vidcurate judge`.")
    to.mkdir(parents=True, exist_ok=True)
    if kind == "jsonl":
        (to / "clips.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return len(rows)
    encoded = _encoded(rows, to, short, crop, say)
    return _as_files(encoded, to) if kind == "clips" else _as_shards(encoded, to)


def _encoded(rows: list[Row], to: Path, short: int, crop: bool, say: Said) -> Iterator[tuple[Row, Path]]:
    for row in rows:
        target = to / f"{row['clip_id']}.mp4"
        if not target.exists():  # an interrupted export goes on where it was
            half = target.with_suffix(".part")
            try:
                cut(row["uri"], row["start_us"], row["end_us"], half, short, crop=row.get("crop") if crop else None)
            except MediaError as error:
                say(f"left out: {error}")
                half.unlink(missing_ok=True)
                continue
            half.replace(target)
        yield row, target


def _as_files(encoded: Iterator[tuple[Row, Path]], to: Path) -> int:
    count = 0
    with (to / "metadata.jsonl").open("w") as lines:
        for row, path in encoded:
            path.with_suffix(".txt").write_text(row["caption"] or "")
            lines.write(json.dumps({"file_name": path.name, **row}) + "\n")
            count += 1
    return count


def _as_shards(encoded: Iterator[tuple[Row, Path]], to: Path) -> int:
    count = 0
    shard: tarfile.TarFile | None = None
    try:
        for row, path in encoded:
            if count % PER_SHARD == 0:
                if shard:
                    shard.close()
                shard = tarfile.open(to / f"shard-{count // PER_SHARD:05d}.tar", "w")  # noqa: SIM115
            assert shard is not None
            shard.add(path, f"{row['clip_id']}.mp4")
            for suffix, text in (("txt", row["caption"] or ""), ("json", json.dumps(row))):
                member = tarfile.TarInfo(f"{row['clip_id']}.{suffix}")
                member.size = len(text.encode())
                shard.addfile(member, io.BytesIO(text.encode()))
            path.unlink()
            count += 1
    finally:
        if shard:
            shard.close()
    return count
