"""Operations are counted as torch counts them, and what is kept of them is what is counted."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")
import torch
from torch.utils.flop_counter import FlopCounterMode

from generator import counted
from generator.counting import Operations
from generator.dit import sizes
from generator.vae import sizes as vaes

DEBUG = [size for size in (*sizes.SIZES, *vaes.SIZES) if size.name.endswith("debug")]
ALL = [*sizes.SIZES, *vaes.SIZES]


def run(size: Any) -> None:
    if isinstance(size, sizes.Size):
        sizes.build(size.config()).eval()(**sizes.inputs(size.config(), size.latents, size.text))
    else:
        vae = vaes.build(size.config()).eval()
        vae.decode(vae.encode_moments(torch.empty(1, 3, *size.video))[0])


@pytest.mark.parametrize("size", DEBUG, ids=lambda size: f"{type(size.config()).__name__}-{size.name}")
def test_as_many_as_torch_counts(size: Any) -> None:
    with torch.device("meta"), torch.no_grad():
        with FlopCounterMode(display=False) as theirs:
            run(size)
        with Operations() as ours:
            run(size)
        with Operations() as again:
            run(size)
    assert ours.total == again.total == theirs.get_total_flops() > 0


def test_tensors_with_numbers_are_computed_and_what_is_changed_in_place_stays_itself() -> None:
    with Operations() as counter:
        product = torch.eye(2) @ torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        with torch.device("meta"):
            for rows in (2, 3, 2, 3):
                x = torch.empty(rows, 4)
                assert x.add_(1) is x and x.t().shape == (4, rows) and x.clone().unsqueeze_(0).shape == (1, rows, 4)
    assert product.tolist() == [[1, 2], [3, 4]] and counter.total == 16


@pytest.mark.parametrize("size", DEBUG, ids=lambda size: f"{type(size.config()).__name__}-{size.name}")
def test_what_is_kept_is_what_is_counted(size: Any) -> None:
    assert counted.cost_of(size) == counted.count(size)


@pytest.mark.slow
@pytest.mark.parametrize(
    "size", [s for s in ALL if s not in DEBUG], ids=lambda s: f"{type(s.config()).__name__}-{s.name}"
)
def test_what_is_kept_of_large_models_is_what_is_counted(size: Any) -> None:
    assert counted.cost_of(size) == counted.count(size)


def test_all_sizes_are_kept() -> None:
    keys = {counted._key(size) for size in ALL}
    assert counted._known().keys() == keys, "python -m generator.counted counts again"
