"""The books of one training run: whose it is, how far it is, its log and its checkpoints."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import shutil
import statistics
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from generator import checkpoint as ckpt
from generator.boards import Boards
from generator.data import Row
from generator.options import Options
from generator.parallel import ALONE, World
from generator.progress import Progress
from generator.recipe import Recipe
from manifests.ids import describe, fingerprint

_KEEP = 2
_MADE = (
    "cache/latents",
    "checkpoints",
    "log.jsonl",
    "lora",
    "samples",
    "scheduler",
    "stages",
    "system.json",
    "tensorboard",
    "text_encoder",
    "text_encoder_2",
    "text_encoder_3",
    "transformer",
    "vae",
    "train.json",  # last: it is what tells that the rest is ours to remove
)

Record = Mapping[str, float | int | str]
_OPTIONS = Options()


def forget(out: Path) -> None:
    """Removes what an earlier run left in `out`, except the decoded pixels; nothing where no run was ever begun."""
    if not (out / "train.json").exists():
        return
    for path in (out / name for name in _MADE):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """A recipe, the clips it trains on and the folder they go to. `ids` are those of `rows`.

    vae: fingerprint of the one that was given, "" where the run trains its own. start: of the trained system that it
    goes on from, "" where it starts anew."""

    out: Path
    recipe: Recipe
    rows: Sequence[Row]
    report: Progress
    vae: str = ""
    world: World = ALONE
    options: Options = _OPTIONS
    boards: Boards | None = None
    start: str = ""
    _writing: list[Callable[[], None]] = dataclasses.field(default_factory=list, repr=False)

    @property
    def ids(self) -> list[str]:
        return [row.id for row in self.rows]

    @property
    def identity(self) -> str:
        return fingerprint(self.recipe, self._clips, *(given for given in (self.vae, self.start) if given))

    @property
    def _clips(self) -> str:
        return fingerprint([[row.id, row.caption] for row in self.rows])

    def open(self, manifest: str | os.PathLike[str]) -> bool:
        """Claims the folder; False if this very run is finished there.

        Raises ValueError if it holds a run of another recipe or of other clips.
        """
        return self.world.agree(self.world.first and self._open(manifest))

    def _open(self, manifest: str | os.PathLike[str]) -> bool:
        mine = {"recipe_fingerprint": fingerprint(self.recipe), "clips_fingerprint": self._clips}
        mine |= {"given_vae": self.vae, "given_start": self.start}
        said = self._read()
        if said is None and (self.out / "checkpoints").exists():
            raise ValueError(f"{self.out} holds checkpoints but no train.json; give another folder.")
        if said is not None:
            for key, what in {
                "recipe_fingerprint": "with another recipe",
                "clips_fingerprint": "on other clips",
                "given_vae": "with another VAE",
                "given_start": "from other weights",
            }.items():
                if said.get(key, "") != mine[key]:
                    raise ValueError(
                        f"{self.out} holds a run {what} (recipe {said['recipe']['name']}, {said['clips']} clips, "
                        f"{key.replace('_', ' ')} {said.get(key) or 'none'}, now {mine[key] or 'none'}); give another "
                        "folder, or --fresh to train again."
                    )
            return not said["finished"]
        try:
            version = importlib.metadata.version("vidcurate")
        except importlib.metadata.PackageNotFoundError:
            version = "not installed"
        self._write(
            {
                "vidcurate": version,
                "torch": torch.__version__,
                "threads": torch.get_num_threads(),
                "manifest": os.fspath(manifest),
                "clips": len(self.rows),
                **mine,
                "recipe": describe(self.recipe),
                "finished": False,
            }
        )
        return True

    def close(self, results: Mapping[str, Any]) -> None:
        """Writes what came out; from now on the run counts as finished."""
        if not self.world.first:
            return
        said = self._read()
        assert said is not None, "open() wrote it"
        self._write({**said, "loss": self._losses(), **results, "finished": True})

    def resume(
        self,
        name: str,
        model: nn.Module,
        trained: Sequence[str],
        optimizer: torch.optim.Optimizer,
        average: Mapping[str, Tensor],
    ) -> int:
        """Puts the newest checkpoint of `name` in place and forgets log lines after it; returns its step, 0 if none.

        trained: names of the optimiser's parameters. However many processes wrote it, these go on from it.
        """
        found = self.world.agree(self._checkpoints(name)[-1:])
        step = 0
        if found:
            step = ckpt.restore(found[0], self.identity, model, trained, optimizer, average)
        if self.world.first:
            kept = [r for r in self.lines() if r["model"] != name or int(r["step"]) <= step]
            _write_whole(self.out / "log.jsonl", "".join(json.dumps(r) + "\n" for r in kept))
        self.world.wait()
        return step

    def save(
        self,
        name: str,
        step: int,
        model: nn.Module,
        trained: Sequence[str],
        optimizer: torch.optim.Optimizer,
        average: Mapping[str, Tensor],
    ) -> None:
        """Writes a checkpoint in the background, after the one before, and removes all but the newest two of that
        model. Every process calls this."""
        self.settle()
        moments = ckpt.optimizer_tensors(trained, optimizer)
        state = ckpt.State(self.identity, step, model.state_dict(), average, moments)
        file = self.out / "checkpoints" / f"{name}-{step:08d}"

        def prune() -> None:
            for old in self._checkpoints(name)[:-_KEEP]:
                ckpt.remove(old)

        self._writing.append(ckpt.begin_save(state, file, self.world, prune))

    def settle(self) -> None:
        """Waits until the last checkpoint is on disk. Raises what went wrong there."""
        while self._writing:
            self._writing.pop()()

    def log(self, record: Record) -> None:
        if not self.world.first:
            return
        with (self.out / "log.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")
        if self.boards is not None:
            self.boards.write(record)

    def lines(self) -> list[dict[str, Any]]:
        """The log; a last line that a killed run left half written is not part of it."""
        file = self.out / "log.jsonl"
        text = file.read_text() if file.exists() else ""
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def _losses(self) -> dict[str, dict[str, float]]:
        """Mean over the first and the last tenth of each model's logged losses."""
        lines, losses = self.lines(), {}
        for name in dict.fromkeys(line["model"] for line in lines):
            values = [line["loss"] for line in lines if line["model"] == name]
            tenth = max(len(values) // 10, 1)
            losses[name] = {"first": statistics.fmean(values[:tenth]), "last": statistics.fmean(values[-tenth:])}
        return losses

    def _checkpoints(self, name: str) -> list[Path]:
        return sorted((self.out / "checkpoints").glob(f"{name}-{'[0-9]' * 8}.*"))

    def _read(self) -> dict[str, Any] | None:
        file = self.out / "train.json"
        return json.loads(file.read_text()) if file.exists() else None

    def _write(self, said: Mapping[str, Any]) -> None:
        _write_whole(self.out / "train.json", json.dumps(said, indent=1) + "\n")


def _write_whole(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(f".{file.name}.{uuid.uuid4().hex[:8]}.tmp")
    fresh.write_text(text)
    fresh.replace(file)
