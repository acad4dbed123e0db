"""Where numbers of a training go besides log.jsonl."""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Boards:
    """TensorBoard's files in `tensorboard/`, and a project at Weights & Biases, where these are wished for.

    Raises ValueError, at once, where a library is missing.
    """

    def __init__(self, out: Path, tensorboard: bool = False, wandb: str = "", config: Any = None) -> None:
        self.out, self.project, self.config = out, wandb, config
        self.wanted = {"tensorboard": tensorboard, "wandb": bool(wandb)}
        self._writer: Any = None
        self._wandb: Any = None
        for name, wish in self.wanted.items():
            if wish and importlib.util.find_spec(name) is None:
                raise ValueError(f"--{name} needs a library: pip install 'vidcurate[{name}]'.")

    def write(self, record: Mapping[str, float | int | str]) -> None:
        """The numbers of a line of the log, by model and name."""
        model, step = str(record["model"]), int(record["step"])
        numbers = {f"{model}/{k}": v for k, v in record.items() if k != "step" and isinstance(v, int | float)}
        if self.wanted["tensorboard"]:
            if self._writer is None:
                from torch.utils.tensorboard import SummaryWriter

                self._writer = SummaryWriter(str(self.out / "tensorboard"))
            for name, value in numbers.items():
                self._writer.add_scalar(name, value, step)
        if self.wanted["wandb"]:
            if self._wandb is None:
                import wandb

                self._wandb = wandb.init(project=self.project, dir=str(self.out), config=self.config, resume="allow")
            # wandb's own count of steps must only ever grow; each model has its own.
            self._wandb.log({**numbers, f"{model}/step": step})

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        if self._wandb is not None:
            self._wandb.finish()
