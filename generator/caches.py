"""What is computed once and kept: decoded pixels and latents, as safetensors parts by clip id.

Every part names its maker, and what another one made is refused: pixels of other settings, latents of another VAE,
embeddings of another text encoder.
"""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from generator.data import DataConfig, Row, read_clip
from manifests.ids import part_id
from manifests.types import MediaError

_CLIPS_PER_PART = 32
Tick = Callable[[int, int], None]
"""Called with (done, total)."""


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


class Pixels:
    """Videos of clips as uint8 (F, H, W, 3): from a cache of all of them, or read from the films whenever they are
    asked for, which costs no disk."""

    def __init__(self, rows: Sequence[Row], config: DataConfig, cache: TensorCache | None) -> None:
        self.config, self.cache = config, cache
        self.rows = {row.id: row for row in rows}
        self.lost: dict[str, str] = {}

    def __getitem__(self, clip_id: str) -> Tensor:
        """Raises MediaError or OSError where a film that is not cached cannot be read."""
        if self.cache is not None:
            return self.cache[clip_id]
        return torch.from_numpy(read_clip(self.rows[clip_id], self.config))

    def videos(self, ids: Sequence[str]) -> Tensor:
        """(B, 3, F, H, W) float32 in [-1, 1]. A film that can no longer be read is left out, with one warning, and
        another clip of the batch stands in its place. Raises ValueError where none can be read."""
        found: dict[str, Tensor] = {}
        for clip in ids:
            try:
                found.setdefault(clip, self[clip])
            except (MediaError, OSError) as error:
                if clip not in self.lost:
                    self.lost[clip] = str(error)
                    warnings.warn(f"clip {clip} is left out of training from now on: {error}", stacklevel=2)
        if not found:
            raise ValueError(f"none of the clips of a batch can be read any more; the first: {self.lost[ids[0]]}")
        there = list(found.values())
        frames = torch.stack([found.get(clip, there[k % len(there)]) for k, clip in enumerate(ids)])
        return to_video(frames)


def to_video(frames: Tensor) -> Tensor:
    """(..., F, H, W, 3) uint8 -> (..., 3, F, H, W) float32 in [-1, 1]."""
    return frames.movedim(-1, -4).float() / 127.5 - 1


def cache_pixels(
    rows: Sequence[Row], config: DataConfig, cache: TensorCache, tick: Tick, workers: int = 1
) -> list[Row]:
    """Decodes what the cache lacks, (F, H, W, 3) uint8 per clip, and returns the rows that it then holds.

    workers: films that are decoded at a time. Clips that are too short or cannot be read are left out with one warning
    that names them. Raises ValueError when no clip is left.
    """
    return _fill(rows, cache, lambda row: torch.from_numpy(read_clip(row, config)), tick, workers)


def cache_latents(
    vae: Any, rows: Sequence[Row], pixels: Pixels, cache: TensorCache, tick: Tick, workers: int = 1
) -> list[Row]:
    """Encodes what the cache lacks: mean and log variance of each clip, (2, C, T, h, w) float32, unscaled.

    Films that are not cached are decoded ahead, `workers` at a time. Returns the rows that the cache then holds; see
    `cache_pixels` for the others.
    """
    device = next(vae.parameters()).device

    @torch.no_grad()
    def encoded(frames: Tensor) -> Tensor:
        video = to_video(frames[None].to(device))
        return torch.cat(vae.encode_moments(video)).cpu().contiguous()

    return _fill(rows, cache, lambda row: pixels[row.id], tick, workers, encoded)


def _fill(
    rows: Sequence[Row],
    cache: TensorCache,
    read: Callable[[Row], Tensor],
    tick: Tick,
    workers: int,
    then: Callable[[Tensor], Tensor] = lambda x: x,
) -> list[Row]:
    """`read` runs in so many threads (decoders let go of Python's lock), `then` in this one, in the order of rows."""
    failures: dict[str, str] = {}
    lacking = [row for row in rows if row.id not in cache]
    with ThreadPoolExecutor(max_workers=workers) as pool:
        for start in range(0, len(lacking), _CLIPS_PER_PART):
            part: dict[str, Tensor] = {}
            now = lacking[start : start + _CLIPS_PER_PART]
            for number, (row, reading) in enumerate(zip(now, [pool.submit(read, r) for r in now], strict=True), start):
                try:
                    part[row.id] = then(reading.result())
                except (MediaError, OSError) as error:
                    failures[row.id] = str(error)
                tick(number + 1, len(lacking))
            if part:
                cache.add(part)
    if failures:
        named = "; ".join(f"{clip}: {why}" for clip, why in failures.items())
        warnings.warn(f"{len(failures)} of {len(rows)} clips are left out of training. {named}", stacklevel=3)
    usable = [row for row in rows if row.id in cache]
    if not usable:
        raise ValueError(
            f"none of the {len(rows)} sampled clips can be trained on; the first: {next(iter(failures.values()))}"
        )
    return usable


def pixel_batch(cache: TensorCache | Pixels, ids: Sequence[str]) -> Tensor:
    """(B, 3, F, H, W) float32 in [-1, 1]."""
    return to_video(torch.stack([cache[clip] for clip in ids]))
