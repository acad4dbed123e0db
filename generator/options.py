"""What a machine decides about a training, in contrast to its recipe: rounding aside, the result is the same."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Options:
    """passes: parts in which a process takes its share of a batch, one after the other, to need less memory.
    shard: weights, gradients and moments are spread over the processes (FSDP2) in place of kept by each.
    context: processes that share the tokens of a sample. tensor: processes that share its heads and widths as well.
    compile: blocks of the transformer are compiled (torch.compile).
    peak: of the device, TFLOP/s, for MFU; what is known of it or measured if None.
    sample_every: steps of a transformer between sample videos, 0 for none before the end.
    tensorboard: also log to `tensorboard/`. wandb: name of the project to log to, none if empty.
    Raises ValueError for numbers that make no sense.
    """

    passes: int = 1
    shard: bool = False
    compile: bool = False
    peak: float | None = None
    sample_every: int = 0
    tensorboard: bool = False
    wandb: str = ""
    context: int = 1
    tensor: int = 1

    def __post_init__(self) -> None:
        if min(self.context, self.tensor) < 1:
            raise ValueError("context and tensor must be at least 1.")
        if self.passes < 1 or self.sample_every < 0 or (self.peak is not None and self.peak <= 0):
            raise ValueError("passes must be at least 1, sample_every at least 0, peak above 0.")
