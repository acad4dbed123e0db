"""Sets to fine-tune a cheaper captioner on what a better one wrote, in the JSON Lines that common trainers read.

CogVideoX has GPT-4 sum up captions of frames, fine-tunes Llama 2 on 50,000 of its answers, and on what that writes a
video LLM that does it all at once. Both steps can be had here: `summaries` pairs captions of frames with the caption of
the clip, `sharegpt` and `llava` pair frames with it. The questions are those that our captioners ask and the answers
have the form that they expect, so the pupil takes the teacher's place.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from captioners import prompts
from captioners.captions import Captions
from captioners.checks import descriptions
from captioners.methods import summary_prompt
from captioners.quoting import harmless
from curation.captioning.kept import Kept, part_of, stage_of
from curation.folder import Folder
from manifests import packs
from manifests.reviews import as_reviewed
from manifests.store import Store

FORMATS = ("sharegpt", "llava", "summaries")
WORDS = 120

Row = dict[str, Any]


def export_lessons(folder: Folder, kind: str, to: Path, which: str, frames: int = 8) -> int:
    """Writes `<kind>.jsonl`, one conversation a line, and for sets with pictures `images/<clip_id>_<k>.jpg`; returns
    how many conversations.

    sharegpt:  `conversations` (from, value), `system` and `images`: LLaMA-Factory and others
    llava:     the same with `image`: LLaVA's own trainer and its offspring
    summaries: captions of frames in, the clip's caption out; for folders that were captioned so

    Captions are as people and repairs left them, without camera and frame rate. frames: most of a clip.
    Raises ValueError when there is nothing to learn from.
    """
    clips = as_reviewed(
        folder.store.read_table("clips.parquet", where=pc.field(which) & pc.is_valid(pc.field("caption")))
    )
    clips = clips.append_column("description", descriptions(clips["caption"]))
    rows = clips.select(["clip_id", "start_us", "pack", "description", "caption_short"]).to_pylist()
    to.mkdir(parents=True, exist_ok=True)
    lessons = _summaries(folder, rows) if kind == "summaries" else _seen(folder.store, kind, rows, to, frames)
    count = 0
    with (to / f"{kind}.jsonl").open("w", encoding="utf-8") as lines:
        for lesson in lessons:
            lines.write(json.dumps(lesson, ensure_ascii=False) + "\n")
            count += 1
    if not count:
        raise ValueError(
            f"{folder.store.root}: no {which} clip has "
            f"{'captions of frames; caption it with --how frames first' if kind == 'summaries' else 'a caption'}."
        )
    return count


def _seen(store: Store, kind: str, rows: Sequence[Row], to: Path, most: int) -> Iterator[Row]:
    (to / "images").mkdir(exist_ok=True)
    wishes = prompts.DIRECT.format(words=WORDS)
    for row, packed in _with_packs(store, rows):
        count = len(packed["jpegs"])
        places = range(count) if count <= most else [int((k + 0.5) * count / most) for k in range(most)]
        names, said = [], []
        for k in places:
            name = f"images/{row['clip_id']}_{k}.jpg"
            (to / name).write_bytes(packed["jpegs"][k])
            names.append(name)
            said.append(f"{(packed['times_us'][k] - row['start_us']) / 1e6:.1f} s:<image>")
        if names:
            yield {
                "id": row["clip_id"],
                "images" if kind == "sharegpt" else "image": names,
                **_conversation("\n".join([*said, wishes]), row),
            }


def _summaries(folder: Folder, rows: Sequence[Row]) -> Iterator[Row]:
    captioner = folder.recipe.captioner
    if not isinstance(captioner, Captions):
        return
    found = Kept(folder.store, stage_of(captioner)).rows(part_of(row["pack"]) for row in rows)
    of_frames = {
        row["clip_id"]: row
        for row in found.select(["clip_id", "caption_frame_times", "caption_frame_texts"]).to_pylist()
        if row["caption_frame_times"]
    }
    for row in rows:
        if row["clip_id"] in of_frames:
            told = of_frames[row["clip_id"]]
            pairs = list(zip(told["caption_frame_times"], told["caption_frame_texts"], strict=True))
            yield {"id": row["clip_id"], **_conversation(summary_prompt(pairs, WORDS), row)}


def _conversation(question: str, row: Mapping[str, Any]) -> Row:
    short = row["caption_short"] or row["description"].partition(". ")[0]
    said = {"short": harmless(short), "dense": harmless(row["description"])}  # no <image> where trainers look for one
    answer = json.dumps(said, ensure_ascii=False)
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"conversations": turns, "system": prompts.SYSTEM}


def _with_packs(store: Store, rows: Sequence[Row]) -> Iterator[tuple[Row, Row]]:
    """Rows with their frame packs."""
    of: dict[str, dict[str, Row]] = {}
    for row in rows:
        of.setdefault(row["pack"], {})[row["clip_id"]] = row
    for pack, mine in of.items():
        for group in packs.groups(store, pack, list(mine)):
            for packed in group.to_pylist():
                yield mine[packed["clip_id"]], packed
