"""Which texts are checked: the captions of kept clips, or those of a captioner that is named on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from captioners.checks import descriptions
from captioners.mentions import one_line
from curation.captioning.kept import Kept
from curation.folder import Folder
from manifests.ids import luck
from manifests.schema import IDENTITY
from manifests.store import Store, read_clips

TEXTS = pa.schema([IDENTITY.field("clip_id"), pa.field("text", pa.string())])
"""Of a table of texts, each clip in it at most once."""

_NEEDS = ("caption", "dsg_caption", "caption_repaired")


def captions(folder: Folder, which: str = "kept") -> pa.Table:
    """Captions without camera and frame rate, as they were before any repair. which: kept or sampled clips."""
    return _captions(folder.store, which)


def _captions(store: Store, which: str) -> pa.Table:
    if which not in ("kept", "sampled"):
        raise ValueError(f"--which {which}: give kept or sampled.")
    clips = read_clips(store.root, ["clip_id", "caption"], pc.field(which), optional=_NEEDS[1:])
    text = descriptions(clips["caption"])
    if set(_NEEDS) <= set(clips.column_names):
        text = pc.if_else(pc.equal(text, clips["caption_repaired"]).fill_null(False), clips["dsg_caption"], text)
    return _texts(clips["clip_id"], text)


def named(folder: Folder, name: str, which: str = "kept") -> pa.Table:
    """What a captioner said: `name` is a column of the manifest, a table (Parquet, JSONL or CSV with clip_id and
    caption), the output folder of another run, or a model that captioned this one, now or earlier.

    Raises ValueError when it is none of these.
    """
    path = Path(name)
    columns = folder.store.dataset("clips.parquet").schema
    if name == "caption":
        return captions(folder, which)
    if name in columns.names and pa.types.is_string(columns.field(name).type):
        clips = read_clips(folder.store.root, ["clip_id", name], pc.field(which))
        return _texts(clips["clip_id"], clips[name])
    if path.is_dir():
        return _captions(Store(path), which)
    if path.is_file():
        return _read(path)
    return _by_captioner(folder, name, which)


def _by_captioner(folder: Folder, name: str, which: str) -> pa.Table:
    """Captions by a model as the manifest has them; otherwise those that an earlier captioning left in its stage."""
    clips = read_clips(folder.store.root, ["clip_id", "caption_model"], pc.field(which))
    of = clips.filter(pc.equal(clips["caption_model"], name))
    if of.num_rows:
        return among(captions(folder, which), of)
    stages = {stage: Kept(folder.store, stage).rows() for stage in folder.store.folders("stages") if _is_caption(stage)}
    models = {stage: pc.unique(rows["caption_model"]).to_pylist() for stage, rows in stages.items()}
    having = [stage for stage in stages if name in (stage, *models[stage])]
    if len(having) > 1:
        raise ValueError(f"--compare {name}: it captioned these clips in several ways; name one: {', '.join(having)}.")
    if not having:
        told = [pc.unique(clips["caption_model"]).to_pylist(), *models.values(), stages]
        known = [one for some_of in told for one in some_of if one]
        raise ValueError(
            f"--compare {name}: that is no column of the manifest, no table, no folder and no captioner"
            f"{f' (these are {said})' if (said := ', '.join(dict.fromkeys(known))) else ''}; name one of them."
        )
    rows = stages[having[0]]
    rows = rows if name == having[0] else rows.filter(pc.equal(rows["caption_model"], name))
    return among(_texts(rows["clip_id"], rows["caption_text"]), clips)


def _is_caption(stage: str) -> bool:
    return stage.startswith("caption-")


def some(texts: pa.Table, count: int, seed: int = 0) -> pa.Table:
    """`count` of them drawn by their clips' ids, all for 0."""
    if not count or texts.num_rows <= count:
        return texts
    drawn = np.argsort(luck(texts["clip_id"].to_pylist(), seed), kind="stable")[:count]
    return texts.take(pa.array(np.sort(drawn)))


def among(texts: pa.Table, others: pa.Table) -> pa.Table:
    """The texts of clips that `others` have, too."""
    return texts.filter(pc.is_in(texts["clip_id"], value_set=others["clip_id"].combine_chunks()))


def _texts(clips: pa.ChunkedArray, text: pa.ChunkedArray) -> pa.Table:
    there = pc.fill_null(pc.greater(pc.utf8_length(pc.utf8_trim_whitespace(text)), 0), False)
    return pa.table([clips, text], schema=TEXTS).filter(there).sort_by("clip_id")


def _read(path: Path) -> pa.Table:
    """A user's table of captions. Raises ValueError when it is none."""
    try:
        if path.suffix.lower() == ".parquet":
            table = pq.read_table(path)
        elif path.suffix.lower() == ".csv":
            table = pyarrow.csv.read_csv(path)
        else:
            lines = path.read_text(encoding="utf-8").splitlines()
            table = pa.Table.from_pylist([json.loads(line) for line in lines if line.strip()])
        clips, text = table["clip_id"].cast(pa.string()), table["caption"].cast(pa.string())
    except (pa.ArrowException, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: that is no table of captions ({one_line(str(error))[:200]}); give Parquet, JSONL or CSV with the "
            "columns clip_id and caption."
        ) from None
    if pc.count_distinct(clips).as_py() != len(clips):
        raise ValueError(f"{path}: a clip stands more than once in this table; leave one caption of each.")
    return _texts(clips, text)
