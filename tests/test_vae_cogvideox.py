"""The CogVideoX VAE against diffusers': outputs, gradients, tiles; causality, chunks, memory, what it cannot take."""

from __future__ import annotations

import dataclasses
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor, nn

from generator.vae import sizes
from generator.vae.cogvideox import CogVideoXVae, VaeConfig
from generator.vae.stream import Stream, chunks
from generator.vae.tiles import Tiling
from tests.generator_films import one_thread  # noqa: F401  (used by being here)
from tests.vae_checks import copied, drawn, off, peak_of, psnr, random, round_trip_off, time_and_place_matter

CONFIG = dataclasses.replace(sizes.cogvideox_debug(), sample_height=96, sample_width=80)
# (B, F, H, W). diffusers makes 4 T frames of an even number T of latents, so with 5 and 13 frames it only encodes.
SHAPES = [
    (1, 1, 32, 48),
    (3, 1, 40, 16),
    (1, 5, 24, 40),
    (2, 9, 48, 40),
    (1, 13, 16, 24),
    (1, 17, 24, 32),
    (1, 25, 16, 16),
    (1, 33, 8, 8),
]


@pytest.fixture(scope="module")
def pair() -> tuple[CogVideoXVae, Any]:
    theirs = drawn(diffusers.AutoencoderKLCogVideoX(**dataclasses.asdict(CONFIG)))
    return copied(theirs, CogVideoXVae(CONFIG)), theirs


@pytest.fixture(scope="module")
def vae(pair: tuple[CogVideoXVae, Any]) -> CogVideoXVae:
    return pair[0]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_outputs_equal_diffusers(shape: tuple[int, ...], pair: tuple[CogVideoXVae, Any]) -> None:
    vae, theirs = pair
    batch, frames, height, width = shape
    x, z = random(batch, 3, frames, height, width), random(batch, 4, (frames + 3) // 4, height // 8, width // 8, seed=1)
    with torch.no_grad():
        (mean, logvar), posterior = vae.encode_moments(x), theirs.encode(x).latent_dist
        assert off(mean, posterior.mean) < 1e-5 and off(logvar, posterior.logvar) < 1e-5
        assert mean.std() > 0.3 and vae.decode(z).shape == x.shape
        if z.shape[2] % 2:
            assert off(vae.decode(z), theirs.decode(z).sample) < 1e-5


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradients_equal_diffusers(shape: tuple[int, ...], pair: tuple[CogVideoXVae, Any]) -> None:
    batch, frames, *sides = shape
    whole, worst = round_trip_off(*pair, random(batch, 3, frames, *sides), decode=frames % 8 == 1)
    assert whole < 1e-5 and worst < 5e-5


@pytest.mark.parametrize("shape", [(9, 96, 120), (5, 56, 64), (1, 128, 40)], ids=str)
def test_tiles_equal_diffusers_and_seams_are_faint(shape: tuple[int, ...], pair: tuple[CogVideoXVae, Any]) -> None:
    vae, theirs = pair
    assert vae.tiling == Tiling(48, 40, 1 / 6, 1 / 5)
    x = random(1, 3, *shape)
    theirs.enable_tiling()
    try:
        with torch.no_grad():
            mean, logvar = vae.encode_moments(x, vae.tiling)
            posterior = theirs.encode(x).latent_dist
            assert off(mean, posterior.mean) < 1e-5 and off(logvar, posterior.logvar) < 1e-5
            z = random(*mean.shape, seed=2)
            tiled = vae.decode(z, vae.tiling)
            if z.shape[2] % 2:
                assert off(tiled, theirs.decode(z).sample) < 1e-5
            # Norms pool over a tile instead of the picture. With random weights and noise for a picture:
            assert psnr(tiled, vae.decode(z)) > 30 and psnr(mean, vae.encode_moments(x)[0]) > 18
            streamed = list(vae.decode_stream(chunks(z, 2), vae.tiling))
            assert torch.equal(torch.cat(streamed, dim=2), tiled)
    finally:
        theirs.disable_tiling()


def test_a_picture_no_larger_than_a_tile_is_coded_whole(vae: CogVideoXVae) -> None:
    x = random(1, 3, 5, 48, 40)
    with torch.no_grad():
        assert torch.equal(vae.encode_moments(x, vae.tiling)[0], vae.encode_moments(x)[0])


def test_time_and_place_matter(vae: CogVideoXVae) -> None:
    assert time_and_place_matter(vae, random(1, 3, 9, 16, 24), random(1, 4, 3, 2, 3)) > 0.01


@pytest.fixture
def frozen_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Group norms pool over time; without their statistics, the network is as causal as its convolutions."""

    def affine(self: Stream, norm: nn.GroupNorm, x: Tensor) -> Tensor:
        shape = (1, -1, 1, 1, 1)
        return x * norm.weight.view(shape) + norm.bias.view(shape)

    monkeypatch.setattr(Stream, "normed", affine)


@pytest.mark.usefixtures("frozen_norms")
@pytest.mark.parametrize("frame", [0, 1, 4, 5, 6, 8, 9, 12, 16])
def test_no_latent_sees_a_later_frame(frame: int, vae: CogVideoXVae) -> None:
    x = random(1, 3, 17, 16, 16)
    changed = x.clone()
    changed[:, :, frame] += 1
    with torch.no_grad():
        before, after = (vae.encode_moments(v, chunk=16)[0] for v in (x, changed))
        assert torch.equal(before[:, :, : -(-frame // 4)], after[:, :, : -(-frame // 4)])
        assert not torch.equal(before[:, :, -(-frame // 4)], after[:, :, -(-frame // 4)])


@pytest.mark.usefixtures("frozen_norms")
def test_chunks_of_any_size_equal_the_whole_where_norms_permit(vae: CogVideoXVae) -> None:
    x, z = random(1, 3, 29, 16, 16), random(1, 4, 8, 2, 2)
    with torch.no_grad():
        whole = vae.encode_moments(x, chunk=28)[0], vae.decode(z, chunk=8)
        for latents in (1, 2, 3):
            assert off(vae.encode_moments(x, chunk=4 * latents)[0], whole[0]) < 1e-5
            assert off(vae.decode(z, chunk=latents), whole[1]) < 1e-5


def test_with_norms_chunks_differ_from_the_whole(vae: CogVideoXVae) -> None:
    """Which is why the published chunks are the default."""
    x = random(1, 3, 29, 16, 16)
    with torch.no_grad():
        assert off(vae.encode_moments(x)[0], vae.encode_moments(x, chunk=28)[0]) > 1e-4


def test_memory_grows_with_the_piece_and_the_tile_alone() -> None:
    vae, side = drawn(CogVideoXVae(CONFIG)), 48

    def pieces(frames: int, height: int) -> Any:
        yield torch.zeros(1, 3, 9, height, side)
        for _ in range((frames - 9) // 8):
            yield torch.zeros(1, 3, 8, height, side)

    def coded(frames: int, height: int = side, tiling: Tiling | None = None) -> int:
        def work() -> None:
            for moments in vae.encode_stream(pieces(frames, height), tiling):
                for _ in vae.decode_stream([moments[:, :4]], tiling):
                    pass

        return peak_of(work)

    short = coded(17)
    assert coded(17 * 4 + 5) < 1.02 * short
    tile = Tiling(side, side, 0, 0)
    wide = [peak_of(lambda h=height: vae.decode(random(1, 4, 3, h // 8, 6), tile)) for height in (side, 8 * side)]
    untiled = peak_of(lambda: vae.decode(random(1, 4, 3, side, 6)))
    video = 4 * 3 * 9 * 8 * side * side
    assert wide[1] - 2 * video < 1.3 * wide[0] and wide[1] < untiled / 3


def test_less_memory_than_diffusers(pair: tuple[CogVideoXVae, Any]) -> None:
    vae, theirs = pair
    x, z = random(1, 3, 17, 64, 64), random(1, 4, 5, 8, 8)
    assert peak_of(lambda: vae.encode_moments(x)) < 0.85 * peak_of(lambda: theirs.encode(x))
    assert peak_of(lambda: vae.decode(z)) < 0.5 * peak_of(lambda: theirs.decode(z))


def test_published_size() -> None:
    with torch.device("meta"):
        vae = CogVideoXVae(sizes.cogvideox_2b())
    counts = [sum(p.numel() for p in part.parameters()) / 1e6 for part in (vae, vae.encoder, vae.decoder)]
    assert counts == pytest.approx([215.6, 92.2, 123.4], abs=0.05)
    assert vae.tiling == Tiling(240, 360, 1 / 6, 1 / 5)
    assert sizes.cogvideox_5b().scaling_factor == 0.7 and sizes.cogvideox_2b().scaling_factor == 1.15258426


@pytest.mark.parametrize(
    ("shape", "nearest"),
    [((16, 16, 16), "17 frames of 16 x 16"), ((6, 30, 17), "5 frames of 32 x 16"), ((3, 1, 3), "5 frames of 8 x 8")],
)
def test_the_nearest_size_that_fits_is_named(shape: tuple[int, ...], nearest: str, vae: CogVideoXVae) -> None:
    with pytest.raises(ValueError, match=rf"must be 4k \+ 1, height and width multiples of 8; .* fits is {nearest}\."):
        vae.encode_moments(torch.zeros(1, 3, *shape))
    frames, height, width = (int(word) for word in nearest.replace(" frames of", "").replace(" x", "").split())
    assert vae.latent_shape(frames, height, width) == ((frames - 1) // 4 + 1, height // 8, width // 8)


def test_tiles_that_cannot_be_are_refused() -> None:
    vae = CogVideoXVae(CONFIG)
    with pytest.raises(ValueError, match="tiles of 36 x 40 pixels must be multiples of 8"):
        vae.decode(torch.zeros(1, 4, 1, 8, 8), Tiling(36, 40))
    with pytest.raises(ValueError, match=r"overlap by 0 to 0\.5, got 0\.7"):
        Tiling(32, 32, 0.7)


@pytest.mark.parametrize("build", [sizes.cogvideox_debug, sizes.easyanimate_v5_debug])
def test_pieces_that_are_no_whole_latents_are_refused(build: Any) -> None:
    vae = sizes.build(build())
    with pytest.raises(ValueError, match="chunks of 6 frames must be multiples of 4"):
        vae.encode_moments(torch.zeros(1, 3, 5, 8, 8), chunk=6)
    with pytest.raises(ValueError, match=r"8 frames of 8 x 8 .* 4k \+ 1 in the first piece, .* is 9 frames"):
        list(vae.encode_stream([torch.zeros(1, 3, 8, 8, 8)]))
    with pytest.raises(ValueError, match=r"5 frames of 8 x 8 .* 4k in a later piece, .* is 4 frames"):
        list(vae.encode_stream([torch.zeros(1, 3, 1, 8, 8), torch.zeros(1, 3, 5, 8, 8)]))


def test_the_recipe_trains_the_debug_size() -> None:
    from generator.recipes import tiny_cogvideox

    assert tiny_cogvideox().vae == sizes.cogvideox_debug() and isinstance(sizes.cogvideox_debug(), VaeConfig)
