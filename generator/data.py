"""From the manifest to tensors: which clips, which frames of them, in which order.

Everything is keyed by clip id: pixels, latents and captions meet by it and by nothing else. The order of the data is
a pure function of (seed, epoch, ids), so a training can go on from any step.
"""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from manifests.ids import part_id
from manifests.media.read import read_frames
from manifests.reviews import READS, as_reviewed
from manifests.store import read_clips
from manifests.types import MediaError

_CLIPS_PER_PART = 32
_SIZES = ("height", "width", "fps")
Tick = Callable[[int, int], None]
"""Called with (done, total)."""


@dataclass(frozen=True, slots=True)
class DataConfig:
    """What of a clip is trained on: `frames` frames at `fps` from its middle, the central square, `size` pixels.

    fill: a clip must last at least this share of frames / fps seconds; what is missing repeats its last frame.
    """

    frames: int = 17
    size: int = 64
    fps: float = 8.0
    fill: float = 0.5


@dataclass(frozen=True, slots=True)
class Row:
    """One clip to train on. start, end: microseconds, half open. height, width, fps: of the film; 0 where the manifest
    does not say."""

    id: str
    uri: str
    start: int
    end: int
    caption: str
    height: int = 0
    width: int = 0
    fps: float = 0.0

    def micro(self, config: DataConfig) -> list[float]:
        """The numbers of `generator.dit.stiv.MICRO`: what is known of how the frames came about."""
        height, width = self.height or config.size, self.width or config.size
        scale = config.size / min(height, width)
        top, left = ((round(side * scale) - config.size) // 2 for side in (height, width))
        return [height, width, top, left, max(self.fps, config.fps) / config.fps, config.frames]


def read_rows(folder: str | os.PathLike[str]) -> list[Row]:
    """The rows of the manifest that are `sampled`, sorted by clip id; a missing caption is the empty text. Where people
    reviewed clips, their part of a clip and their caption count; a part has an id of its own, so that nothing that was
    cached of the whole clip is taken for it.

    Raises ValueError when there is no manifest, it was not judged yet, or no row is sampled.
    """
    columns = ["clip_id", "uri", "start_us", "end_us", "caption"]
    try:
        table = read_clips(folder, columns, where=pc.field("sampled"), optional=(*READS, *_SIZES))
    except pa.ArrowInvalid as error:
        raise ValueError(
            f"{folder}: the manifest lacks one of the columns that training reads, {', '.join(columns)} and sampled; "
            "`vidcurate run` writes them all."
        ) from error
    rows = [
        Row(
            _part_id(whole, r),
            r["uri"],
            r["start_us"],
            r["end_us"],
            r["caption"] or "",
            *(r.get(name) or 0 for name in _SIZES),
        )
        for whole, r in zip(table.to_pylist(), as_reviewed(table).to_pylist(), strict=True)
    ]
    if not rows:
        raise ValueError(f"no row is sampled in {folder}; loosen the rules with `vidcurate judge {folder}`.")
    return sorted(rows, key=lambda row: row.id)


def _part_id(whole: Mapping[str, object], part: Mapping[str, object]) -> str:
    """Of a part of a clip; of the whole clip its own."""
    span = (part["start_us"], part["end_us"])
    if span == (whole["start_us"], whole["end_us"]):
        return str(whole["clip_id"])
    return f"{whole['clip_id']}_{span[0]:012d}_{span[1]:012d}"


def frame_times(row: Row, config: DataConfig) -> list[int]:
    """Microseconds of the wanted frames: a window in the middle of the clip, or all of it and its last frame again.

    Raises MediaError for a clip that is too short.
    """
    window = config.frames / config.fps * 1e6
    length = row.end - row.start
    if length < config.fill * window:
        raise MediaError(
            f"{row.uri}: {length / 1e6:.2f} s is too short, training needs {config.fill * window / 1e6:.2f} s"
        )
    start = row.start + max(0, int(length - window) // 2)
    return [min(start + round(k * 1e6 / config.fps), row.end - 1) for k in range(config.frames)]


def read_clip(row: Row, config: DataConfig) -> npt.NDArray[np.uint8]:
    """(F, size, size, 3) RGB. Raises MediaError when the clip is too short or cannot be read."""
    times = frame_times(row, config)
    frames = read_frames(row.uri, times[0], times[-1] + 1, times, short=config.size)
    height, width = frames.shape[1:3]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    frames = frames[:, top : top + side, left : left + side]
    if side != config.size:  # films smaller than the recipe's size are not enlarged by the reader
        frames = np.stack([cv2.resize(f, (config.size, config.size), interpolation=cv2.INTER_AREA) for f in frames])
    return np.ascontiguousarray(frames)


class TensorCache:
    """Tensors by clip id in safetensors parts of one folder. Each part names the maker of what it holds.

    Raises ValueError when the folder holds parts of another maker, or damaged ones.
    """

    def __init__(self, folder: Path, maker: str, what: str) -> None:
        self.folder, self.maker, self.what = folder, maker, what
        self._files: dict[str, safe_open] = {}
        for part in sorted(folder.glob("*.safetensors")):
            self._open(part)

    def __contains__(self, clip_id: str) -> bool:
        return clip_id in self._files

    def __getitem__(self, clip_id: str) -> Tensor:
        return self._files[clip_id].get_tensor(clip_id)

    def add(self, tensors: Mapping[str, Tensor]) -> None:
        """One more part; written under a temporary name and renamed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / f"{part_id(tensors)}.safetensors"
        fresh = part.with_name(f".{part.name}.tmp")
        save_file(dict(tensors), fresh, metadata={"maker": self.maker})
        fresh.replace(part)
        self._open(part)

    def _open(self, part: Path) -> None:
        try:
            opened = safe_open(part, framework="pt")
        except SafetensorError as error:
            raise ValueError(f"{part}: these cached {self.what} cannot be read ({error}); delete the file.") from error
        maker = (opened.metadata() or {}).get("maker")
        if maker != self.maker:
            raise ValueError(
                f"{self.folder}: the cached {self.what} were made by {maker}, but {self.maker} is in use; "
                f"delete that folder to make them again."
            )
        self._files.update(dict.fromkeys(opened.keys(), opened))


def cache_pixels(rows: Sequence[Row], config: DataConfig, cache: TensorCache, tick: Tick) -> list[Row]:
    """Decodes what the cache lacks, (F, size, size, 3) uint8 per clip, and returns the rows that it then holds.

    Clips that are too short or cannot be read are left out with one warning that names them.
    Raises ValueError when no clip is left.
    """
    failures: dict[str, str] = {}
    lacking = [row for row in rows if row.id not in cache]
    for start in range(0, len(lacking), _CLIPS_PER_PART):
        part: dict[str, Tensor] = {}
        for number, row in enumerate(lacking[start : start + _CLIPS_PER_PART], start):
            try:
                part[row.id] = torch.from_numpy(read_clip(row, config))
            except (MediaError, OSError) as error:
                failures[row.id] = str(error)
            tick(number + 1, len(lacking))
        if part:
            cache.add(part)
    if failures:
        named = "; ".join(f"{clip}: {why}" for clip, why in failures.items())
        warnings.warn(f"{len(failures)} of {len(rows)} clips are left out of training. {named}", stacklevel=2)
    usable = [row for row in rows if row.id in cache]
    if not usable:
        raise ValueError(
            f"none of the {len(rows)} sampled clips can be trained on; the first: {next(iter(failures.values()))}"
        )
    return usable


def pixel_batch(cache: TensorCache, ids: Sequence[str]) -> Tensor:
    """(B, 3, F, H, W) float32 in [-1, 1]."""
    return torch.stack([cache[clip] for clip in ids]).permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def cache_latents(vae: Any, ids: Sequence[str], pixels: TensorCache, cache: TensorCache, tick: Tick) -> None:
    """Encodes what the cache lacks: mean and log variance of each clip, (2, C, T, h, w) float32, unscaled."""
    device = next(vae.parameters()).device
    lacking = [clip for clip in ids if clip not in cache]
    for start in range(0, len(lacking), _CLIPS_PER_PART):
        part = {}
        for number, clip in enumerate(lacking[start : start + _CLIPS_PER_PART], start):
            with torch.no_grad():
                moments = vae.encode_moments(pixel_batch(pixels, [clip]).to(device))
            part[clip] = torch.cat(moments).cpu()
            tick(number + 1, len(lacking))
        cache.add(part)


def order(ids: Sequence[str], seed: int, epoch: int) -> list[str]:
    """A permutation that depends on nothing but its arguments, as a set: the same on every machine and version."""
    return sorted(ids, key=lambda clip: hashlib.blake2b(f"{seed}/{epoch}/{clip}".encode(), digest_size=16).digest())


def batches(ids: Sequence[str], seed: int, size: int, first: int = 0) -> Iterator[list[str]]:
    """Batches of clip ids without end, from number `first` on; a batch may span two epochs, so none is ever empty."""
    assert ids, "somebody checked that there is data"
    epoch, place = -1, first * size
    ordered: list[str] = []
    while True:
        batch: list[str] = []
        for _ in range(size):
            if place // len(ids) != epoch:
                epoch = place // len(ids)
                ordered = order(ids, seed, epoch)
            batch.append(ordered[place % len(ids)])
            place += 1
        yield batch
