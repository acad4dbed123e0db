"""How a VAE's weights begin, and how they go from stills to clips."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")
import torch

from generator.vae import sizes
from generator.vae.starting import calm, inflate
from tests.generator_films import one_thread  # noqa: F401  (used by being here)

MADE = {
    "cogvideox": (sizes.cogvideox_debug(), 9),
    "magvit": (sizes.easyanimate_v5_debug(), 9),
    "tae": (sizes.moviegen_tae_debug(), 8),
}


@pytest.fixture(params=list(MADE))
def made(request: pytest.FixtureRequest) -> tuple[Any, int]:
    torch.manual_seed(0)
    config, frames = MADE[request.param]
    vae = sizes.build(config)
    for weight in vae.parameters():  # those of a TAE begin as if inflated
        weight.data += 0.02 * torch.randn_like(weight)
    return vae.eval(), frames


def codes(vae: Any, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return vae.decode(vae.encode_moments(x)[0])[:, :, : x.shape[2]]  # type: ignore[no-any-return]


def test_stills_are_coded_as_before_and_still_clips_as_stills(made: tuple[Any, int]) -> None:
    vae, frames = made
    x = torch.rand(2, 3, 1, 32, 32) * 2 - 1
    before, clip = codes(vae, x), x.expand(-1, -1, frames, -1, -1)
    unlike = (codes(vae, clip) - before).abs().mean()
    inflate(vae)
    torch.testing.assert_close(codes(vae, x), before, rtol=1e-4, atol=1e-4)
    after = (codes(vae, clip) - before).abs().mean()
    assert after <= unlike + 1e-4, "a clip that stands still is no less a still than before"


def test_a_frame_is_seen_by_itself_alone() -> None:
    vae = sizes.build(sizes.cogvideox_debug()).eval()
    inflate(vae)
    conv = vae.encoder.conv_in.conv
    assert bool((conv.weight[:, :, :-1] == 0).all()) and bool(conv.weight[:, :, -1].any())


def test_blocks_begin_as_their_shortcuts(made: tuple[Any, int]) -> None:
    vae, _ = made
    blocks = [block for block in calm(vae).modules() if hasattr(block, "conv2")]
    assert blocks
    assert all(not weight.any() for block in blocks for weight in block.conv2.parameters() if block.conv2 is not None)


@pytest.mark.parametrize("config", [sizes.stiv_debug(), sizes.easyanimate_v3_debug()])
def test_what_cannot_be_inflated_is_refused(config: Any) -> None:
    with pytest.raises(ValueError, match=r"a clip of itself, not for (ImageVae|SliceVae)"):
        inflate(sizes.build(config))
