"""Several processes that train one model; nothing else here knows of ranks and meshes."""

from generator.parallel.shards import (
    alike,
    clip,
    fill,
    full,
    is_part,
    read_shards,
    shards_in,
    write_shards,
)
from generator.parallel.tensor import plan
from generator.parallel.world import ALONE, World, blocks, world

__all__ = [
    "ALONE",
    "World",
    "alike",
    "blocks",
    "clip",
    "fill",
    "full",
    "is_part",
    "plan",
    "read_shards",
    "shards_in",
    "world",
    "write_shards",
]
