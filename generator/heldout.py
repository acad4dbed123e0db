"""Clips that are never trained on, and what models are worth on them while they train."""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

import copy
import hashlib
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch

from generator.data import DataConfig, Row
from generator.loop import Judge
from generator.material import Material
from generator.measures import fixed_times, heldout_loss, vae_scores
from generator.parallel import World
from generator.systems.base import System
from generator.telling import STRATA

T = TypeVar("T")

_MOST = 64
"""Clips to validate on: more would make the loss steadier, and every validation longer."""


def split(rows: Sequence[Row], share: float) -> tuple[list[Row], list[Row]]:
    """Rows to train on and rows held out: all clips of the films whose id has a hash in the lowest `share` of all
    hashes, so that no film is on both sides, and none changes sides when others are added to the manifest. Clips of one
    film are much alike: a model that trained on some would be measured by what it remembers of the others.

    A film of more than half of the clips is always trained on; where no film is drawn, that of the lowest hash is held
    out. Raises ValueError where all clips are of one film.
    """
    if not share:
        return list(rows), []
    clips = Counter(row.film for row in rows)
    if len(clips) < 2:
        raise ValueError(
            "the clips are all of one film, which cannot be trained on and held out; add clips of other films, or set "
            "held_out to 0."
        )
    ranked = sorted((film for film, count in clips.items() if 2 * count <= len(rows)), key=_hash)
    count = sum(_hash(film) < share for film in ranked)
    held = set(ranked[: min(max(count, 1), len(clips) - 1)])
    return [row for row in rows if row.film not in held], [row for row in rows if row.film in held]


def hold_out(material: Mapping[DataConfig, Material], share: float) -> dict[DataConfig, Material]:
    """Takes the held-out rows away from what the stages train on; returns them as materials that share the caches. A
    clip that one stage holds out is trained on by none."""
    rows = {row.id: row for each in material.values() for row in each.rows}
    apart = {row.id for row in split(list(rows.values()), share)[1]}
    found = {}
    for data, each in material.items():
        held = found[data] = copy.copy(each)
        held.rows = [row for row in each.rows if row.id in apart]
        each.rows = [row for row in each.rows if row.id not in apart]
    return found


def _hash(name: str) -> float:
    """0..1, of a film or a clip."""
    return int.from_bytes(hashlib.blake2b(f"held out/{name}".encode(), digest_size=8).digest(), "big") / 2**64


def judge_vae(vae: torch.nn.Module, held: Material, world: World) -> Judge | None:
    """`val_loss`, the mean squared error of reconstructions, and `val_psnr`, dB; None where no clip is held out."""

    def scores(mine: list[Row]) -> list[float]:
        return [vae_scores(vae, held.pixels.videos([row.id]))["psnr"].item() for row in mine]

    def judge() -> dict[str, float]:
        vae.eval()
        found = _shared(held.rows, world, scores)
        vae.train()
        return {
            "val_loss": math.fsum(4 * 10 ** (-psnr / 10) for psnr in found) / len(found),
            "val_psnr": math.fsum(found) / len(found),
        }

    return judge if held.rows else None


def judge_system(system: System, held: Material, world: World, seed: int) -> Judge | None:
    """`val_loss` at fixed noise and fixed times, and `val_loss_t1` .. at each of them; see `measures.heldout_loss`.
    None where no clip is held out."""

    def losses(mine: list[Row]) -> list[list[float]]:
        times, batch = fixed_times(system.objective, STRATA), held.batch(system)
        # Clips of several shapes one by one: every process then calls sharded weights equally often.
        size = len(mine) if len({row.group for row in held.rows}) == 1 else 1
        found = []
        for start in range(0, len(mine), size):
            ids = [row.id for row in mine[start : start + size]]
            found += heldout_loss(system, batch(ids, list(range(len(ids))), len(ids)), ids, times, seed).loss.tolist()
        return found

    def judge() -> dict[str, float]:
        found = _shared(held.rows, world, losses)
        means = [math.fsum(column) / len(found) for column in zip(*found, strict=True)]
        said = {f"val_loss_t{number + 1}": mean for number, mean in enumerate(means)}
        return {"val_loss": math.fsum(means) / len(means), **said}

    return judge if held.rows else None


def _shared(rows: Sequence[Row], world: World, work: Callable[[list[Row]], list[T]]) -> list[T]:
    """What `work` finds for each of the first clips, each team of processes taking some; all of them equally many, as
    sharded weights want."""
    rows = sorted(rows, key=lambda row: _hash(row.id))[:_MOST]
    share = -(-len(rows) // world.teams)
    mine = [rows[k % len(rows)] for k in range(world.mine * share, (world.mine + 1) * share)]
    found = [each for part in world.of_teams(world.gather(work(mine))) for each in part]
    return found[: len(rows)]
