"""EasyAnimate's VAEs: MagViT against diffusers'; the Slice VAE against a plain rendering of its rules."""

from __future__ import annotations

import dataclasses
from typing import Any

import diffusers
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from generator.vae import sizes
from generator.vae.magvit import MagvitVae
from generator.vae.slice_vae import SliceVae
from generator.vae.tiles import Tiling
from tests.generator_films import one_thread  # noqa: F401  (used by being here)
from tests.vae_checks import copied, drawn, off, peak_of, psnr, random, round_trip_off, time_and_place_matter

CONFIG = sizes.easyanimate_v5_debug()
POOLED = dataclasses.replace(CONFIG, spatial_group_norm=False)
TILES = Tiling(64, 48, 1 / 8, 1 / 6)
SHAPES = [(1, 1, 32, 48), (1, 5, 24, 40), (2, 9, 48, 40), (1, 13, 16, 24), (1, 17, 24, 32), (1, 21, 8, 8)]


def make(config: Any) -> tuple[MagvitVae, Any]:
    theirs = drawn(diffusers.AutoencoderKLMagvit(**dataclasses.asdict(config)))
    return copied(theirs, MagvitVae(config)), theirs


@pytest.fixture(scope="module")
def pair() -> tuple[MagvitVae, Any]:
    return make(CONFIG)


@pytest.fixture(scope="module")
def pooled() -> tuple[MagvitVae, Any]:
    return make(POOLED)


@pytest.fixture(scope="module")
def slices() -> SliceVae:
    return drawn(SliceVae(sizes.easyanimate_v3_debug()))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("which", ["pair", "pooled"])
def test_outputs_equal_diffusers(which: str, shape: tuple[int, ...], request: pytest.FixtureRequest) -> None:
    vae, theirs = request.getfixturevalue(which)
    batch, frames, height, width = shape
    x, z = random(batch, 3, frames, height, width), random(batch, 4, (frames + 3) // 4, height // 8, width // 8, seed=1)
    with torch.no_grad():
        (mean, logvar), posterior = vae.encode_moments(x), theirs.encode(x).latent_dist
        assert off(mean, posterior.mean) < 1e-5 and off(logvar, posterior.logvar) < 1e-5
        assert mean.std() > 0.3 and vae.decode(z).shape == x.shape
        assert off(vae.decode(z), theirs.decode(z).sample) < 1e-5


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("which", ["pair", "pooled"])
def test_gradients_equal_diffusers(which: str, shape: tuple[int, ...], request: pytest.FixtureRequest) -> None:
    batch, frames, *sides = shape
    whole, worst = round_trip_off(*request.getfixturevalue(which), random(batch, 3, frames, *sides))
    assert whole < 1e-5 and worst < 5e-5


def test_time_and_place_matter(pair: tuple[MagvitVae, Any]) -> None:
    assert time_and_place_matter(pair[0], random(1, 3, 9, 16, 24), random(1, 4, 3, 2, 3)) > 0.01


def test_tiles_equal_diffusers_where_it_puts_them_right(pair: tuple[MagvitVae, Any]) -> None:
    """Its encoder appends whole tiles, so all but the first lie too far down and right; its decoder crops them."""
    vae, theirs = pair
    x = random(1, 3, 9, 96, 120)
    theirs.enable_tiling(64, 48, None, 56, 40)
    try:
        with torch.no_grad():
            mean, z = vae.encode_moments(x, TILES)[0], random(1, 4, 3, 12, 15)
            assert off(vae.decode(z, TILES), theirs.decode(z).sample) < 1e-5
            whole = vae.encode_moments(x)[0]
            posterior = theirs.encode(x).latent_dist.mean
            assert psnr(posterior, whole) < 19 < 22 < psnr(mean, whole)
            assert off(mean[..., :7, :5], posterior[..., :7, :5]) < 1e-5, "the first tile lies right"
            assert psnr(vae.decode(z, TILES), vae.decode(z)) > 22
    finally:
        theirs.disable_tiling()


def test_magvit_in_chunks_equals_the_whole(pair: tuple[MagvitVae, Any]) -> None:
    vae, x, z = pair[0], random(1, 3, 25, 16, 16), random(1, 4, 7, 2, 2)
    with torch.no_grad():
        whole = vae.encode_moments(x, chunk=24)[0], vae.decode(z, chunk=6)
        for latents in (1, 2, 4):
            assert off(vae.encode_moments(x, chunk=4 * latents)[0], whole[0]) < 1e-5
            assert off(vae.decode(z, chunk=latents), whole[1]) < 1e-5


@pytest.mark.parametrize("frame", [0, 1, 4, 5, 8, 12])
def test_no_latent_of_magvit_sees_a_later_frame(frame: int, pair: tuple[MagvitVae, Any]) -> None:
    vae, x = pair[0], random(1, 3, 13, 16, 16)
    changed = x.clone()
    changed[:, :, frame] += 1
    first = -(-frame // 4)
    with torch.no_grad():
        before, after = (vae.encode_moments(v, chunk=12)[0] for v in (x, changed))
    assert torch.equal(before[:, :, :first], after[:, :, :first])
    assert not torch.equal(before[:, :, first], after[:, :, first])


def test_memory_of_magvit_grows_with_the_piece_alone(pair: tuple[MagvitVae, Any]) -> None:
    vae, theirs = pair

    def coded(frames: int) -> int:
        def work() -> None:
            for moments in vae.encode_stream(torch.zeros(1, 3, 4 if k else 1, 32, 32) for k in range(frames // 4 + 1)):
                for _ in vae.decode_stream([moments[:, :4]]):
                    pass

        return peak_of(work)

    assert coded(61) < 1.02 * coded(9)
    x, z = random(1, 3, 9, 48, 48), random(1, 4, 3, 6, 6)
    assert peak_of(lambda: vae.encode_moments(x)) < 0.95 * peak_of(lambda: theirs.encode(x))
    assert peak_of(lambda: vae.decode(z)) < 0.95 * peak_of(lambda: theirs.decode(z))


def test_published_sizes() -> None:
    """The Slice VAE counted from the released code: two residual blocks in both middles, attention between them."""
    with torch.device("meta"):
        counts = [
            sum(p.numel() for p in sizes.build(config()).parameters())
            for config in (sizes.easyanimate_v5, sizes.easyanimate_v3, sizes.easyanimate_v3_debug)
        ]
        assert counts == [244_375_507, 245_979_879, 263_359]
        assert counts[0] == sum(p.numel() for p in diffusers.AutoencoderKLMagvit().parameters())


# Slice VAE


@pytest.mark.parametrize(("frames", "latents"), [(1, 1), (8, 2), (9, 3), (16, 4), (17, 5), (144, 36)])
def test_slices_and_images_have_their_frame_rules(frames: int, latents: int, slices: SliceVae) -> None:
    x = random(1, 3, frames, 8, 16)
    with torch.no_grad():
        mean, _ = slices.encode_moments(x)
        assert mean.shape == (1, 4, latents, 1, 2) == (1, 4, *slices.latent_shape(frames, 8, 16))
        assert slices.decode(mean).shape == x.shape


def test_a_slice_of_frames_is_encoded_alone_and_not_causally(slices: SliceVae) -> None:
    x = random(1, 3, 25, 16, 16)
    with torch.no_grad():
        whole = slices.encode_moments(x)[0]
        parts = [slices.encode_moments(part)[0] for part in (x[:, :, :1], x[:, :, 1:9], x[:, :, 9:17], x[:, :, 17:])]
        assert off(torch.cat(parts, dim=2), whole) < 1e-6
        changed = x.clone()
        changed[:, :, 8] += 1  # the last frame of the first slice
        after = slices.encode_moments(changed)[0]
    moved = [not torch.equal(whole[:, :, k], after[:, :, k]) for k in range(7)]
    assert moved == [False, True, True, False, False, False, False]


def test_slices_of_latents_share_features_with_their_neighbours_alone(slices: SliceVae) -> None:
    z = random(1, 4, 11, 2, 2)  # an image and five slices, the frames of slice k being 1 + 8 k and on
    with torch.no_grad():
        whole = slices.decode(z)
        for number in range(5):
            changed = z.clone()
            changed[:, :, 1 + 2 * number : 3 + 2 * number] *= -1
            after = slices.decode(changed)
            parts = zip(*(video.split([1, 8, 8, 8, 8, 8], dim=2) for video in (after, whole)), strict=True)
            moved = [off(*part) > 1e-3 for part in parts]
            assert moved == [False, *(abs(k - number) <= 1 for k in range(5))]


def test_images_take_a_path_of_their_own(slices: SliceVae) -> None:
    x = random(1, 3, 9, 16, 16)
    with torch.no_grad():
        mean = slices.encode_moments(x)[0]
        image = slices.encode_moments(x[:, :, :1])[0]
        assert off(mean[:, :, :1], image) < 1e-6
        assert off(slices.decode(mean)[:, :, :1], slices.decode(image)) < 1e-5
        changed = mean.clone()
        changed[:, :, 0] += 1
        assert torch.equal(slices.decode(changed)[:, :, 1:], slices.decode(mean)[:, :, 1:]), "it is nobody's neighbour"
        still = x[:, :, :1].expand(-1, -1, 8, -1, -1)
        assert off(slices.encode_moments(still)[0][:, :, :1], image) > 0.01, "a still video is not an image"


@pytest.mark.parametrize("attention", ["3d", "spatial"])
@pytest.mark.parametrize("frames", [1, 8, 24])
def test_the_slice_vae_is_what_its_rules_say(frames: int, attention: str) -> None:
    """Written out again, straight from the names of the weights."""
    config = dataclasses.replace(sizes.easyanimate_v3_debug(), mid_block_attention_type=attention)
    vae = drawn(SliceVae(config))
    plain = Plain(vae.state_dict(), attention)
    x = random(1, 3, frames, 16, 24)
    with torch.no_grad():
        mean, logvar = vae.encode_moments(x)
        parts = [plain.encode(part) for part in x.split(8, dim=2)]
        moments = plain.point("quant_conv", torch.cat(parts, dim=2))
        assert off(torch.cat([mean, logvar], dim=1), moments) < 1e-5
        z = plain.point("post_quant_conv", mean)
        pieces = [piece for piece in z.split(2, dim=2)]
        videos = []
        for k in range(len(pieces)):
            near = pieces[max(k - 1, 0) : k + 2]
            at = 2 if k else 0
            videos.append(plain.decode(torch.cat(near, dim=2), slice(at, at + 2), image=frames == 1))
        assert off(vae.decode(mean), torch.cat(videos, dim=2)) < 1e-5


class Plain:
    """A slice through the network, zeros beyond both of its ends."""

    def __init__(self, weights: dict[str, Tensor], attention: str) -> None:
        self.weights, self.attention = weights, attention

    def encode(self, x: Tensor) -> Tensor:
        x = self.conv("encoder.conv_in", x)
        for level in range(4):
            x = self.blocks(f"encoder.down_blocks.{level}", x, 2)
            if level < 3:
                stride = (1 if level == 0 else 2, 2, 2)
                x = self.conv(
                    f"encoder.down_blocks.{level}.downsampler.conv", F.pad(x, (0, 1, 0, 1)), stride, (1, 0, 0)
                )
        return self.conv("encoder.conv_out", self.norm("encoder.conv_norm_out", self.middle("encoder", x)))

    def decode(self, z: Tensor, own: slice, image: bool) -> Tensor:
        x = self.middle("decoder", self.conv("decoder.conv_in", z))[:, :, own]
        for level in range(4):
            x = self.blocks(f"decoder.up_blocks.{level}", x, 3)
            if level < 3:
                x = F.interpolate(x, scale_factor=(1, 2, 2))
                x = self.conv(f"decoder.up_blocks.{level}.upsampler.conv", x)
                if level and not image:
                    x = F.interpolate(x, scale_factor=(2, 1, 1), mode="trilinear")
        return self.conv("decoder.conv_out", self.norm("decoder.conv_norm_out", x))

    def conv(self, name: str, x: Tensor, stride: Any = 1, padding: Any = 1) -> Tensor:
        return F.conv3d(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], stride, padding)

    def point(self, name: str, x: Tensor) -> Tensor:
        return self.conv(name, x, padding=0)

    def norm(self, name: str, x: Tensor, then: Any = F.silu) -> Tensor:
        return then(F.group_norm(x, 2, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], 1e-6))

    def blocks(self, name: str, x: Tensor, count: int) -> Tensor:
        for k in range(count):
            x = self.block(f"{name}.convs.{k}", x)
        return x

    def block(self, name: str, x: Tensor) -> Tensor:
        h = self.conv(f"{name}.conv1", self.norm(f"{name}.norm1", x))
        h = self.conv(f"{name}.conv2", self.norm(f"{name}.norm2", h))
        return h + (self.point(f"{name}.shortcut", x) if f"{name}.shortcut.weight" in self.weights else x)

    def middle(self, name: str, x: Tensor) -> Tensor:
        x = self.block(f"{name}.mid_block.convs.0", x)
        if self.attention == "3d":
            x = self.attend(f"{name}.mid_block.attentions.0", x)
        else:
            x = torch.cat([self.attend(f"{name}.mid_block.attentions.0", one) for one in x.split(1, dim=2)], dim=2)
        return self.block(f"{name}.mid_block.convs.1", x)

    def attend(self, name: str, x: Tensor) -> Tensor:
        tokens = self.norm(f"{name}.group_norm", x, lambda normed: normed).flatten(2).transpose(1, 2)
        q, k, v, out = (
            lambda t, part=part: F.linear(t, self.weights[f"{name}.{part}.weight"], self.weights[f"{name}.{part}.bias"])
            for part in ("to_q", "to_k", "to_v", "to_out")
        )
        scores = (q(tokens) @ k(tokens).transpose(1, 2) / x.shape[1] ** 0.5).softmax(dim=-1)
        return x + out(scores @ v(tokens)).transpose(1, 2).unflatten(2, x.shape[2:])


def test_tiles_of_slices(slices: SliceVae) -> None:
    assert slices.tiling == Tiling(384, 384, 0.25, 0.25)
    tiles, x = Tiling(32, 32, 0.25, 0.25), random(1, 3, 9, 56, 40)
    with torch.no_grad():
        mean = slices.encode_moments(x, tiles)[0]
        assert psnr(mean, slices.encode_moments(x)[0]) > 15
        z = random(*mean.shape)
        assert psnr(slices.decode(z, tiles), slices.decode(z)) > 20


def test_memory_of_slices_grows_with_the_video_alone(slices: SliceVae) -> None:
    def needed(frames: int) -> int:
        x = random(1, 3, frames, 32, 32)
        return peak_of(lambda: slices.decode(slices.encode_moments(x)[0]))

    video = 4 * 3 * 32 * 32
    assert needed(80) - needed(24) < 1.1 * 2 * (80 - 24) * video, "the result and its parts, no more"


@pytest.mark.parametrize(
    ("shape", "nearest"), [((4, 8, 8), "1 frame of 8 x 8"), ((13, 9, 12), "16 frames of 8 x 16"), ((23, 8, 8), "24 f")]
)
def test_what_slices_cannot_take(shape: tuple[int, ...], nearest: str, slices: SliceVae) -> None:
    with pytest.raises(ValueError, match=rf"frames must be 8k or 8k \+ 1, .* nearest that fits is {nearest}"):
        slices.encode_moments(torch.zeros(1, 3, *shape))


def test_what_magvit_cannot_take(pair: tuple[MagvitVae, Any]) -> None:
    with pytest.raises(
        ValueError, match=r"8 frames of 8 x 8 does not fit .* 4k \+ 1, .* nearest that fits is 9 frames"
    ):
        pair[0].encode_moments(torch.zeros(1, 3, 8, 8, 8))
    with pytest.raises(ValueError, match=r"a latent of this VAE is \(B, 4"):
        pair[0].decode(torch.zeros(1, 3, 1, 1, 1))


@pytest.mark.parametrize(
    ("config", "changes", "sentence"),
    [
        (CONFIG, {"down_block_types": ("SpatialDownBlock3D",)}, "down_block_types .* must be 4 of"),
        (CONFIG, {"up_block_types": ("SpatialUpBlock3D",) * 4}, "double the frames as often"),
        (CONFIG, {"act_fn": "relu"}, "act_fn 'relu' is not supported"),
        (sizes.easyanimate_v3_debug(), {"slice_compression_vae": False}, "slice_compression_vae must be true"),
        (sizes.easyanimate_v3_debug(), {"mid_block_attention_type": "temporal"}, "must be 3d or spatial"),
        (sizes.easyanimate_v3_debug(), {"mini_batch_decoder": 3}, "mini_batch_encoder 8 must be 4 times"),
        (sizes.easyanimate_v3_debug(), {"mid_block_type": "MidBlock2D"}, "mid_block_type must be MidBlock3D"),
    ],
)
def test_settings_that_no_released_vae_has_are_refused(config: Any, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        dataclasses.replace(config, **changes)
