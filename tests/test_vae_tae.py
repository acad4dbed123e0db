"""Movie Gen's temporal autoencoder and the image VAE it starts from, which is also STIV's."""

from __future__ import annotations

import dataclasses
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor, nn

from generator.vae import sizes
from generator.vae.image import ImageVae
from generator.vae.tae import DownInTime, Tae, TimeAttention, UpInTime, inflate
from generator.vae.tiles import Tiling, crossfade
from tests.generator_films import one_thread  # noqa: F401  (used by being here)
from tests.vae_checks import copied, drawn, gradients_off, off, peak_of, psnr, random

IMAGE, TAE = sizes.stiv_debug(), sizes.moviegen_tae_debug()


@pytest.fixture(scope="module")
def pair() -> tuple[ImageVae, Any]:
    theirs = drawn(diffusers.AutoencoderKL(**dataclasses.asdict(IMAGE)))
    return copied(theirs, ImageVae(IMAGE)), theirs


@pytest.fixture(scope="module")
def tae() -> Tae:
    return drawn(Tae(TAE))


def frames_of(video: Tensor) -> Tensor:
    return video.transpose(1, 2).flatten(0, 1)


@pytest.mark.parametrize(
    "shape", [(1, 1, 32, 48), (2, 3, 24, 40), (1, 5, 8, 8), (1, 9, 16, 24), (3, 1, 40, 16), (1, 8, 32, 32)], ids=str
)
def test_frames_equal_diffusers(shape: tuple[int, ...], pair: tuple[ImageVae, Any]) -> None:
    vae, theirs = pair
    batch, count, height, width = shape
    x, z = random(batch, 3, count, height, width), random(batch, 4, count, height // 8, width // 8, seed=1)
    with torch.no_grad():
        (mean, logvar), posterior = vae.encode_moments(x), theirs.encode(frames_of(x)).latent_dist
        assert off(frames_of(mean), posterior.mean) < 1e-5 and off(frames_of(logvar), posterior.logvar) < 1e-5
        assert off(frames_of(vae.decode(z)), theirs.decode(frames_of(z)).sample) < 1e-5


def test_gradients_equal_diffusers(pair: tuple[ImageVae, Any]) -> None:
    vae, theirs = pair
    mean, logvar = vae.encode_moments(random(1, 3, 3, 24, 16))
    posterior = theirs.encode(frames_of(random(1, 3, 3, 24, 16))).latent_dist
    ((mean**2).mean() + logvar.sin().mean() + (vae.decode(mean) ** 2).mean()).backward()
    video = theirs.decode(posterior.mean).sample
    ((posterior.mean**2).mean() + posterior.logvar.sin().mean() + (video**2).mean()).backward()
    assert gradients_off(vae, theirs) < 1e-5


def test_tiles_equal_diffusers(pair: tuple[ImageVae, Any]) -> None:
    vae, theirs = pair
    theirs.enable_tiling()
    try:
        x = random(1, 3, 2, 64, 72)
        with torch.no_grad():
            mean = vae.encode_moments(x, vae.tiling)[0]
            assert off(frames_of(mean), theirs.encode(frames_of(x)).latent_dist.mean) < 1e-5
            assert off(frames_of(vae.decode(mean, vae.tiling)), theirs.decode(frames_of(mean)).sample) < 1e-5
    finally:
        theirs.disable_tiling()


def test_frames_are_strangers_to_each_other_and_memory_to_their_number(pair: tuple[ImageVae, Any]) -> None:
    vae, x = pair[0], random(1, 3, 9, 16, 16)
    with torch.no_grad():
        whole = vae.encode_moments(x, chunk=9)[0]
        assert off(vae.encode_moments(x, chunk=1)[0], whole) < 1e-5
        assert off(vae.encode_moments(x[:, :, 4:5])[0], whole[:, :, 4:5]) < 1e-5
    few, many = (peak_of(lambda n=n: vae.encode_moments(torch.zeros(1, 3, n, 32, 32))) for n in (8, 80))
    assert many - few < 3 * 72 * 8 * 16 * 4 + 72 * 3 * 32 * 32 * 4


def test_published_sizes() -> None:
    with torch.device("meta"):
        tae, image = sizes.build(sizes.moviegen_tae()), sizes.build(sizes.stable_diffusion())
    counts = [sum(p.numel() for p in part.parameters()) / 1e6 for part in (tae, tae.encoder, tae.decoder, image)]
    assert counts == pytest.approx([114.5, 47.2, 67.3, 83.65], abs=0.05)
    assert sum(p.numel() for p in Tae(TAE).parameters()) == 340_833
    assert sizes.stiv().latent_channels == 8 and sizes.moviegen_tae().temporal_compression_ratio == 8
    assert sizes.cost_of(sizes.SIZES[0]).latent == (16, 13, 60, 90)


# TAE


@pytest.mark.parametrize("over_time", [True, False])
def test_an_inflated_image_vae_still_computes_the_same_of_an_image(over_time: bool) -> None:
    config = dataclasses.replace(IMAGE, block_out_channels=(8, 16, 32, 32))
    image = drawn(ImageVae(config))
    tae, x = inflate(image, norm_over_time=over_time).eval(), random(2, 3, 1, 24, 32)
    with torch.no_grad():
        mean, logvar = image.encode_moments(x)
        assert off(tae.encode_moments(x)[0], mean) < 1e-6 and off(tae.encode_moments(x)[1], logvar) < 1e-6
        assert off(tae.decode(mean, frames=1), image.decode(mean)) < 1e-5
        still = tae.decode(mean)
        assert still.shape == (2, 3, 8, 24, 32) and off(still, still[:, :, :1].expand_as(still)) < 1e-6
        # A new model halves time by taking every other frame, so a still video is its image.
        video = x.expand(-1, -1, 16, -1, -1)
        assert off(tae.encode_moments(video)[0], mean.expand(-1, -1, 2, -1, -1)) < 1e-5


def test_an_image_sees_itself_before_and_after(tae: Tae) -> None:
    """Also with trained weights: an image is a still video of any length."""
    x = random(1, 3, 1, 16, 24)
    with torch.no_grad():
        mean = tae.encode_moments(x)[0]
        assert off(tae.encode_moments(x.expand(-1, -1, 8, -1, -1))[0], mean) < 1e-5


def test_where_time_is_looked_along(tae: Tae) -> None:
    """Every spatial convolution has one along time; three levels halve time, three double it; attention has both."""
    spatial = [m for m in tae.modules() if isinstance(m, nn.Conv2d)]
    temporal = [m for m in tae.modules() if isinstance(m, nn.Conv3d)]
    assert len(spatial) == len(temporal) and {m.kernel_size[1:] for m in temporal} == {(1, 1)}
    assert len([m for m in tae.encoder.modules() if isinstance(m, DownInTime)]) == 3
    assert len([m for m in tae.decoder.modules() if isinstance(m, UpInTime)]) == 3
    assert len([m for m in tae.modules() if isinstance(m, TimeAttention)]) == 2


@pytest.mark.parametrize(("frames", "latents"), [(1, 1), (7, 1), (8, 1), (9, 2), (31, 4), (32, 4), (33, 5), (64, 8)])
def test_any_number_of_frames_and_the_spurious_ones_dropped(frames: int, latents: int, tae: Tae) -> None:
    x = random(1, 3, frames, 8, 16)
    with torch.no_grad():
        mean, _ = tae.encode_moments(x)
        assert mean.shape == (1, 4, latents, 1, 2) == (1, 4, *tae.latent_shape(frames, 8, 16))
        whole = tae.decode(mean)
        assert whole.shape[2] == 8 * latents and torch.equal(tae.decode(mean, frames), whole[:, :, :frames])


def test_time_looks_both_ways(tae: Tae) -> None:
    x, changed = random(1, 3, 16, 8, 8), random(1, 3, 16, 8, 8)
    changed[:, :, -1] *= -1
    with torch.no_grad():
        before, after = (tae.encode_moments(v)[0] for v in (x, changed))
        assert off(after[:, :, :1], before[:, :, :1]) > 1e-3


def test_tiles_in_time(tae: Tae) -> None:
    """64 frames: two tiles to encode, three of four latents to decode, every other latent in two of them."""
    x, z = random(1, 3, 64, 8, 8), random(1, 4, 8, 1, 1)
    with torch.no_grad():
        halves = [tae.encode_moments(part, tile=None)[0] for part in (x[:, :, :32], x[:, :, 32:])]
        assert off(torch.cat(halves, dim=2), tae.encode_moments(x)[0]) < 1e-6
        a, b, c = (tae.decode(z[:, :, k : k + 4], tile=None) for k in (0, 2, 4))
        w = torch.arange(16.0).view(1, 1, -1, 1, 1) / 16
        both = [(1 - w) * one[:, :, 16:] + w * other[:, :, :16] for one, other in ((a, b), (b, c))]
        wanted = torch.cat([a[:, :, :16], *both, c[:, :, 16:]], dim=2)
        assert off(tae.decode(z), wanted) < 1e-6
        streamed = list(tae.decode_stream(z))
        assert [part.shape[2] for part in streamed] == [16, 16, 32]
        assert torch.equal(torch.cat(streamed, dim=2), tae.decode(z))
        # Random weights: convolutions meet another end, and norms and attention another length.
        assert psnr(tae.decode(z), tae.decode(z, tile=None)) > 25
        for count in (1, 2, 3, 4, 5, 6, 7, 9):
            assert tae.decode(random(1, 4, count, 1, 1)).shape[2] == 8 * count


def test_a_crossfade_begins_with_the_one_before() -> None:
    faded = crossfade(torch.zeros(1, 1, 4, 1, 1), torch.ones(1, 1, 4, 1, 1), dim=2)
    assert faded.flatten().tolist() == [0, 0.25, 0.5, 0.75]


def test_memory_grows_with_the_tile_alone(tae: Tae) -> None:
    def needed(latents: int) -> int:
        return peak_of(lambda: [None for _ in tae.decode_stream(torch.zeros(1, 4, latents, 2, 2))])

    assert needed(32) < 1.02 * needed(8) < 1.02 * 1.3 * needed(4)
    x = torch.zeros(1, 3, 160, 16, 16)
    whole = peak_of(lambda: tae.encode_moments(x, tile=None))
    assert peak_of(lambda: tae.encode_moments(x)) < 0.3 * whole


def test_tiles_of_the_picture(tae: Tae) -> None:
    z = random(1, 4, 3, 8, 6)
    with torch.no_grad():
        assert psnr(tae.decode(z, 20, Tiling(32, 32)), tae.decode(z, 20)) > 20
        x = random(1, 3, 9, 48, 64)
        assert psnr(tae.encode_moments(x, Tiling(32, 32))[0], tae.encode_moments(x)[0]) > 12


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda tae: tae.decode(torch.zeros(1, 4, 2, 1, 1), frames=8), "2 latents are 9 to 16 frames, not 8"),
        (lambda tae: tae.decode(torch.zeros(1, 4, 2, 1, 1), tile=2), "tiles of 2 latents cannot share 2"),
        (
            lambda tae: tae.encode_moments(torch.zeros(1, 3, 9, 8, 8), tile=12),
            "tiles of 12 frames must be multiples of 8",
        ),
        (lambda tae: tae.encode_moments(torch.zeros(1, 3, 9, 8, 12)), "multiples of 8; .* fits is 9 frames of 8 x 16"),
        (lambda tae: tae.encode_moments(torch.zeros(1, 4, 9, 8, 8)), r"a video of this VAE is \(B, 3"),
        (lambda tae: dataclasses.replace(TAE, temporal_levels=(3,)), r"must be among 0 \.\. 2"),
        (lambda tae: dataclasses.replace(IMAGE, act_fn="relu"), "act_fn 'relu'"),
        (lambda tae: dataclasses.replace(IMAGE, up_block_types=("x",)), "up_block_types"),
        (lambda tae: dataclasses.replace(IMAGE, down_block_types=("x",)), "down_block_types"),
    ],
)
def test_what_cannot_be_taken(ask: Any, sentence: str, tae: Tae) -> None:
    with pytest.raises(ValueError, match=sentence):
        ask(tae)
