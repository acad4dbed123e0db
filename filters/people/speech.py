"""Speech: the share of a clip's time in which somebody speaks.

Silero VAD, whose weights are part of its package, gives each window of 32 ms a probability; a window of at least one
half counts. Range 0 to 1. Evidence for CogVideoX's lecture type. A clip without sound has none, which is not the same
as silence.

Source: github.com/snakers4/silero-vad, `OnnxWrapper` (64 samples of context before every 512).
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from manifests.schema import column
from manifests.types import Clip, Frames, Sampling

RATE = 16_000
WINDOW = 512
CONTEXT = 64


@dataclass(frozen=True, slots=True)
class Speech:
    """least: probability from which a window is speech."""

    least: float = 0.5
    wants = Sampling(1.0, 0, audio=RATE)
    schema: ClassVar[pa.Schema] = pa.schema(
        [column("speech_fraction", pa.float64(), "share of time with speech", range="0..1", null="no sound")]
    )

    def __call__(self, clips: Sequence[Clip], frames: Sequence[Frames]) -> dict[str, list[Any]]:
        return {"speech_fraction": [self._share(f.images[0]) if len(f) else None for f in frames]}

    def _share(self, sound: npt.NDArray[Any]) -> float | None:
        found = speech(sound)
        return float((found >= self.least).mean()) if len(found) else None


def speech(sound: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Probability of speech for every window of 32 ms; sound: mono int16 at 16 kHz. A last piece of less than half a
    window is left out."""
    samples = sound.ravel().astype(np.float32) / 32768
    count = (len(samples) + WINDOW // 2) // WINDOW
    if not count:
        return np.zeros(0, np.float32)
    padded = np.zeros(CONTEXT + count * WINDOW, np.float32)
    padded[CONTEXT:][: len(samples)] = samples[: count * WINDOW]
    windows = np.lib.stride_tricks.sliding_window_view(padded, CONTEXT + WINDOW)[::WINDOW]
    nothing = np.zeros((1, 1, 128), np.float32)
    given = {"input": np.ascontiguousarray(windows), "h": nothing, "c": nothing}
    return np.asarray(_model().run(["speech_probs"], given)[0], np.float32)


@functools.cache
def _model() -> Any:
    """One session per process, of one thread. The package itself imports torch, which its weights do not need."""
    spec = importlib.util.find_spec("silero_vad")
    if spec is None or spec.origin is None:
        raise ValueError("speech detection needs the weights of Silero VAD: pip install 'vidcurate[speech]'.")
    path = Path(spec.origin).parent / "data" / "silero_vad_16k_sequence.onnx"
    if not path.is_file():
        raise ValueError(f"{path.name} is missing from silero-vad; install silero-vad 6.2.3 or newer.")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
