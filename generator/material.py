"""What a stage trains on: its clips, their pixels and latents in the caches, and batches of them."""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from generator.caches import Pixels, TensorCache, cache_latents, cache_pixels
from generator.data import DataConfig, Row, chosen
from generator.dit.conditions import whole_patches
from generator.dit.costs import patch_of
from generator.feed import Feed, Grouped, Loading, Mixed, Packs, Plan, Unit
from generator.progress import Progress
from generator.systems.base import Batch, Packed, System
from generator.texts import Published
from manifests.buckets import Shape


class Material:
    """The clips of one `DataConfig`. folder: of the caches; settings that make the same pixels share them.

    Raises ValueError where no clip is left; see `generator.data.chosen` and `generator.caches.cache_pixels`.
    """

    def __init__(
        self, rows: Sequence[Row], config: DataConfig, folder: Path, loading: Loading, report: Progress, device: str
    ) -> None:
        self.config, self.folder, self.loading, self.report, self.device = config, folder, loading, report, device
        self.rows: Sequence[Row] = chosen(rows, config)
        cache = None
        if loading.keep:
            made_by = f"settings {config.geometry}"
            cache = TensorCache(folder / f"pixels-{config.geometry}", made_by, "pixels")
            self.rows = cache_pixels(self.rows, config, cache, self._tick("decode"), loading.workers)
        self.pixels = Pixels(self.rows, config, cache)
        self.latents: TensorCache | None = None

    @property
    def ids(self) -> list[str]:
        return [row.id for row in self.rows]

    def encode(self, vae: Any, maker: str, name: str = "latents") -> TensorCache:
        """Latents of all clips. maker: fingerprint of the VAE. name: of their folder among the caches."""
        folder = self.folder / name / self.config.geometry
        cache = TensorCache(folder, f"VAE {maker}", "latents")
        tick, workers = self._tick("encode"), self.loading.workers
        self.rows = cache_latents(vae, self.rows, self.pixels, cache, tick, workers)
        self.latents = cache
        return cache

    def tell(self, system: System) -> None:
        """Has published text encoders say all captions, which the cache then knows."""
        texts = ["", *(row.caption for row in self.rows)]
        for encoder in system.towers:
            if isinstance(encoder, Published):
                encoder.remember(texts, self.folder, self._tick("texts"))

    def typical(self) -> list[float]:
        """The numbers of `generator.dit.stiv.MICRO` in the middle of all clips that become what samples look like."""
        alike = [row for row in self.rows if self.config.shape(row).frames == self.config.frames] or self.rows
        return torch.tensor([row.micro(self.config) for row in alike]).median(dim=0).values.tolist()

    def shapes(self) -> dict[str, Shape]:
        """Of each group of clips."""
        return {row.group: self.config.shape(row) for row in self.rows}

    def videos(self, seed: int, batch: int, images: float = 0.0) -> Feed:
        """Batches of pixels (B, 3, F, H, W) in [-1, 1]. images: share of those that are images, F = 1, where there are
        any besides the clips."""
        return self._feed(
            self._plan(seed, dict.fromkeys(self.shapes(), batch), images),
            lambda units, slots, world: self.pixels.videos(_flat(units)).to(self.device),
        )

    def batches(self, system: System, vae: Any, seed: int, batch: int) -> Feed:
        """Batches for a system. batch: clips of one, where there is no budget of tokens; sequences of a frame pack."""
        one = self.batch(system)

        def pack(units: list[Unit], slots: list[int], world: int) -> Packed:
            clips = [one([clip], [slot], world) for clip, slot in zip(_flat(units), slots, strict=True)]
            numbers = iter(range(len(clips)))
            return Packed(clips, [[next(numbers) for _ in unit] for unit in units], world)

        if self.config.pack:
            return self._feed(self._packs(self.tokens(system, vae), seed, batch), pack)
        plan = self._plan(seed, self._sizes(system, vae, batch), self.config.images)
        return self._feed(plan, lambda units, slots, world: one(_flat(units), slots, world))

    def batch(self, system: System) -> Callable[[list[str], list[int], int], Batch]:
        """What makes a batch of clips of one shape, given their ids, slots and the clips of the global batch."""
        assert self.latents is not None, "encode() comes first"
        latents, by_id = self.latents, {row.id: row for row in self.rows}
        time = patch_of(system.transformer.config)[0]

        def one(ids: list[str], slots: list[int], world: int) -> Batch:
            rows = [by_id[clip] for clip in ids]
            found = torch.stack([latents[clip] for clip in ids]).to(self.device)
            whole, repeated = whole_patches(found, time)
            micro = torch.tensor([row.micro(self.config) for row in rows], device=self.device)
            texts = [row.caption for row in rows]
            return Batch(whole, texts, slots, lambda: self.pixels.videos(ids).to(self.device), micro, world, repeated)

        return one

    def tokens(self, system: System, vae: Any) -> dict[str, int]:
        """Tokens of a clip of each group, its text included. Raises ValueError for shapes that do not fit the VAE."""
        found, patch = {}, patch_of(system.transformer.config)
        for group, shape in self.shapes().items():
            try:
                latents = vae.latent_shape(shape.frames, shape.height, shape.width)
            except ValueError as error:
                raise ValueError(f"clips of bucket {group or 'all'}: {error}") from error
            found[group] = math.prod(-(-n // p) for n, p in zip(latents, patch, strict=True)) + system.text_length
        return found

    def _sizes(self, system: System, vae: Any, batch: int) -> dict[str, int]:
        """Clips of a batch of each group."""
        tokens = self.tokens(system, vae)
        if not self.config.tokens:
            return dict.fromkeys(tokens, batch)
        self._check(tokens)
        return {group: self.config.tokens // count for group, count in tokens.items()}

    def _check(self, tokens: Mapping[str, int]) -> None:
        for group, count in tokens.items():
            if count > self.config.tokens:
                raise ValueError(
                    f"one clip of bucket {group or 'all'} is {count} tokens, more than the {self.config.tokens} of a "
                    f"{'sequence' if self.config.pack else 'batch'}; give the data more tokens, or buckets of shorter "
                    "or smaller clips."
                )

    def _packs(self, tokens: Mapping[str, int], seed: int, batch: int) -> Plan:
        self._check(tokens)
        films, stills = ([clip for ids in groups.values() for clip in ids] for groups in self._groups())
        lengths = {row.id: tokens[row.group] for row in self.rows}
        return Packs(films, stills, lengths, self.config.tokens, batch, self.config.images, seed)

    def _groups(self) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
        """Ids of clips by group, and of the images among them."""
        films: dict[str, list[str]] = {}
        stills: dict[str, list[str]] = {}
        for row in self.rows:
            (stills if self._extra(row) else films).setdefault(row.group, []).append(row.id)
        if not films:
            raise ValueError("only images are left to train on, no clip; train on images alone with frames=1.")
        return films, stills

    def _plan(self, seed: int, sizes: Mapping[str, int], images: float) -> Plan:
        films, stills = self._groups()
        plan = Grouped(films, sizes, seed)
        return Mixed(plan, Grouped(stills, sizes, seed), images) if stills and images else plan

    def _extra(self, row: Row) -> bool:
        """Whether it is one of the images among videos."""
        return row.still and self.config.frames > 1

    def _feed(self, plan: Plan, fetch: Any) -> Feed:
        return Feed(plan, fetch, self.loading.ahead, self.loading.workers)

    def _tick(self, phase: str) -> Any:
        return lambda done, total: self.report(phase, done, total, {})


def _flat(units: Sequence[Unit]) -> list[str]:
    return [clip for unit in units for clip in unit]


def spread(latents: TensorCache, ids: Sequence[str]) -> float:
    """Standard deviation of the latents of these clips, over all channels and places."""
    count, total, squares = 0, 0.0, 0.0
    for clip in ids:
        mean, logvar = latents[clip].double()
        count += mean.numel()
        total += float(mean.sum())
        squares += float((mean.square() + logvar.exp()).sum())
    return math.sqrt(squares / count - (total / count) ** 2)
