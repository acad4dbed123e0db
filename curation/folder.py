"""An output folder as later commands find it: what made it, its tables, and judging it anew."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curation import recipes
from curation.captioning.asking import Asking, from_note
from curation.identify import group
from curation.job import Job, Part, Video, receipts
from curation.recipe import Recipe, check_columns, reviewed, with_settings
from curation.report import write_report
from curation.run import Result, check_format, finish
from manifests.store import Store

_SCANNED = ("ok", "quarantined")


class Folder:
    """Raises ValueError when the folder holds no finished run, or one of another version."""

    def __init__(self, path: str | os.PathLike[str]):
        self.store = Store(path)
        if not self.store.exists("run.json"):
            raise ValueError(f"{path}: no finished run here; give the folder that `vidcurate run --out` wrote.")
        check_format(self.store)
        self.made: dict[str, Any] = self.store.read_json("run.json")

    @property
    def recipe(self) -> Recipe:
        return self.asking.applied(self.plain_recipe)

    @property
    def plain_recipe(self) -> Recipe:
        """Without the captioner that a command line named."""
        return with_settings(reviewed(recipes.find(self.made["recipe"]), self.store), self.made["set"])

    @property
    def asking(self) -> Asking:
        """Who captions, if models do."""
        return from_note(self.made.get("captioner"))

    @property
    def clips(self) -> pa.Table:
        return self.store.read_table("clips.parquet")

    def clip(self, beginning: str) -> pa.Table:
        """The one row whose clip_id begins so. Raises ValueError when there is none, or more than one."""
        found = self.store.read_table("clips.parquet", where=pc.starts_with(pc.field("clip_id"), beginning))
        if found.num_rows != 1:
            many = "no clip has" if not found.num_rows else f"{found.num_rows} clips have"
            raise ValueError(
                f"{beginning}: {many} an id that begins so; take one from the clip_id column of clips.parquet."
            )
        return found

    @property
    def videos(self) -> pa.Table:
        return self.store.read_table("videos.parquet")

    def inputs(self) -> tuple[list[Part], list[Video], dict[str, str]]:
        """Parts, inputs and repeats as the run left them."""
        rows = self.videos.to_pylist()
        videos = [Video(r["uri"], r["bytes"] or 0, r["video_id"], None if r["video_id"] else r["error"]) for r in rows]
        scanned = [v for v, r in zip(videos, rows, strict=True) if r["status"] in _SCANNED and v.id]
        first = {v.id: v.uri for v in scanned}
        repeats = {r["uri"]: first[r["video_id"]] for r in rows if r["status"] == "duplicate"}
        done = {name: r.videos for name, r in receipts(self.store, self.made["stages"]["scan"]).items()}
        return group(scanned, self.recipe.parts, done), videos, repeats

    def judge(self, reference: str | None = None, settings: Sequence[str] = ()) -> Result:
        """Applies rules, copies and resampling anew to the stored signals, and rewrites manifest and report.

        reference: take these from another recipe. settings: `key=value`, on top of what the folder has.
        Raises ValueError for settings that change what is measured: those need the videos again.
        """
        old = self.plain_recipe
        kept = list(self.made["set"])
        new = old if reference is None else _decisions_of(reviewed(recipes.find(reference), self.store), old)
        new = self.asking.applied(with_settings(new, settings))
        check_columns(new)
        if (new.scan_stage, new.measure_stage) != (old.scan_stage, old.measure_stage):
            raise ValueError(
                f"{', '.join(settings)}: changes what is measured, not how it is judged; use `vidcurate run` with it."
            )
        job = Job(self.store.root, new, self.made["measure_all"])
        origin = {
            "recipe": reference or self.made["recipe"],
            "set": [*(() if reference else kept), *settings],
            "sources": self.made["sources"],
            "captioner": self.asking.noted(),
        }
        parts, videos, repeats = self.inputs()
        return finish(job, self.store, parts, videos, repeats, dict(self.made["seconds"]), origin)

    def report(self) -> str:
        """Writes report.html from the stored tables; returns its path."""
        clips = self.store.read_table("clips.parquet")
        return write_report(self.store, clips, self.videos, self.recipe, self.made)


def _decisions_of(recipe: Recipe, measured: Recipe) -> Recipe:
    """`recipe`'s decisions over `measured`'s measurements."""
    taken = ("name", "derived", "rules", "subsets", "copies", "concepts", "resample", "buckets", "captioner")
    return dataclasses.replace(measured, **{name: getattr(recipe, name) for name in taken})
