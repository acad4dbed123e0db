"""EasyAnimate's masks: each kind hides what its name says, and each is drawn as often as released."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor

from generator.dit import masks
from generator.dit.masks import condition, guiding_frame, mask_video, masked_video, random_mask


def draws(kind: str | None, frames: int = 9, count: int = 60) -> list[Tensor]:
    random = torch.Generator().manual_seed(0)
    return [random_mask(frames, 32, 48, random, kind) for _ in range(count)]


def hidden(mask: Tensor) -> list[bool]:
    """Of each frame, all of it."""
    return [bool(frame.all()) for frame in mask]


@pytest.mark.parametrize("kind", masks.VIDEO_SHARES)
def test_masks_are_zeros_and_ones_and_differ(kind: str) -> None:
    drawn = draws(kind)
    assert all(mask.shape == (9, 1, 32, 48) and set(mask.unique().tolist()) <= {0.0, 1.0} for mask in drawn)
    assert kind == "all" or len({float(mask.sum()) for mask in drawn}) > 3
    assert max(float(mask.mean()) for mask in drawn) > 0


def test_known_ends_are_one_to_four_frames() -> None:
    for mask in draws("after the first"):
        known = hidden(mask).index(True)
        assert 1 <= known <= 4 and all(hidden(mask)[known:])
    for mask in draws("between first and last"):
        said = hidden(mask)
        known = said.index(True)
        assert 1 <= known <= 4 and said == [False] * known + [True] * (9 - 2 * known) + [False] * known


def test_blocks_and_discs_have_their_size() -> None:
    for mask in draws("block"):
        assert torch.equal(mask[0], mask[8]) and 0 < float(mask.mean()) <= 0.75**2
    for mask in draws("block for a while"):
        shown = [bool(frame.any()) for frame in mask]
        assert sum(shown) >= 1 and "".join("01"[s] for s in shown).strip("0").count("0") == 0, "one stretch of frames"
    for mask in draws("circle"):
        rows, columns = int(mask[0, 0].any(1).sum()), int(mask[0, 0].any(0).sum())
        assert max(rows, columns) <= 2 * 8 and torch.equal(mask[0], mask[5])
    for mask in draws("boxes"):
        assert 1 <= int(mask.flatten(1).any(1).sum()) <= 4 and float(mask[0].mean()) <= 1 / 16
    assert all({True, False} == set(hidden(mask)) for mask in draws("frames", frames=40, count=10))


def test_kinds_are_drawn_as_often_as_released(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sum(masks.VIDEO_SHARES.values()) == pytest.approx(1) and sum(masks.IMAGE_SHARES.values()) == 1
    seen: Counter[str] = Counter()
    monkeypatch.setattr(masks, "_PAINT", {k: lambda *_, k=k: seen.update([k]) for k in masks.VIDEO_SHARES})
    draws(None, count=2000)
    for kind, share in masks.VIDEO_SHARES.items():
        assert seen[kind] / 2000 == pytest.approx(share, abs=0.03)
    seen.clear()
    draws(None, frames=1, count=1000)
    assert set(seen) == {"block", "all"} and seen["all"] / 1000 == pytest.approx(0.8, abs=0.04)


@pytest.mark.parametrize("size", [(2, 4, 4), (3, 4, 8), (1, 1, 1), (4, 1, 9)])
def test_small_films_have_masks_too(size: tuple[int, int, int]) -> None:
    random = torch.Generator().manual_seed(0)
    for _ in range(200):
        assert random_mask(*size, random).shape == (size[0], 1, *size[1:])


def test_hidden_pixels_are_minus_one_and_the_mask_is_a_film() -> None:
    video, mask = torch.full((3, 2, 2, 2), 0.25), torch.zeros(2, 1, 2, 2)
    mask[1, 0, 0] = 1
    shown = masked_video(video, mask)
    assert shown[:, 1, 0].unique().tolist() == [-1.0] and shown[:, 1, 1].unique().tolist() == [0.25]
    assert mask_video(mask).shape == (3, 2, 2, 2) and mask_video(mask)[:, 1, 0].unique().tolist() == [1.0]
    assert mask_video(mask)[:, 0].unique().tolist() == [-1.0]


def test_a_mask_that_hides_everything_is_mostly_no_guidance() -> None:
    latents, random = torch.ones(4, 2, 2, 2), torch.Generator().manual_seed(0)
    everything = [condition(latents, latents * 2, torch.ones(2, 1, 4, 4), random) for _ in range(400)]
    assert sum(not c.any() for c in everything) / 400 == pytest.approx(0.9, abs=0.05)
    some = torch.ones(2, 1, 4, 4)
    some[0] = 0
    shown = [condition(latents, latents * 2, some, random) for _ in range(50)]
    assert all(torch.equal(c, torch.cat([latents, latents * 2])) for c in shown) and shown[0].shape == (8, 2, 2, 2)


def test_the_first_frame_guides_half_the_time() -> None:
    random = torch.Generator().manual_seed(0)
    drawn = Counter(guiding_frame(5, random) for _ in range(1000))
    assert drawn[0] / 1000 == pytest.approx(0.5 + 0.1, abs=0.05) and set(drawn) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize(("frames", "kind"), [(9, "stripes"), (1, "frames")])
def test_kinds_that_there_are_not_are_named(frames: int, kind: str) -> None:
    with pytest.raises(ValueError, match=f"masks of {frames} frames are block, all.*{kind!r} is not one"):
        random_mask(frames, 8, 8, kind=kind)
