"""The CogVideoX models: the published layout, causality, folders, errors."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

import generator
from generator.dit import sizes as dit_sizes
from generator.dit.cogvideox import CogVideoXTransformer, DitConfig
from generator.text import HashedWordEncoder, TextConfig, bucket
from generator.vae import sizes as vae_sizes
from generator.vae.cogvideox import CausalConv3d, CogVideoXVae, Stream, VaeConfig

VAE = vae_sizes.cogvideox_debug()
DIT = dit_sizes.cogvideox_debug()
SMALL_DIT = DitConfig(
    num_attention_heads=2,
    attention_head_dim=32,
    in_channels=4,
    out_channels=4,
    time_embed_dim=32,
    text_embed_dim=24,
    num_layers=2,
    sample_width=12,
    sample_height=8,
    sample_frames=9,
    max_text_seq_length=6,
)
PUBLISHED = {
    "2b": DitConfig(),
    "5b": DitConfig(num_attention_heads=48, num_layers=42, use_rotary_positional_embeddings=True),
    "5b image": DitConfig(
        num_attention_heads=48,
        num_layers=42,
        in_channels=32,
        use_rotary_positional_embeddings=True,
        use_learned_positional_embeddings=True,
    ),
    "1.5 5b image": DitConfig(
        num_attention_heads=48,
        num_layers=42,
        in_channels=32,
        ofs_embed_dim=512,
        patch_size_t=2,
        patch_bias=False,
        sample_width=170,
        sample_height=96,
        sample_frames=81,
        use_rotary_positional_embeddings=True,
    ),
}


def shapes(model: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def theirs(config: VaeConfig | DitConfig) -> Any:
    kind = diffusers.AutoencoderKLCogVideoX if isinstance(config, VaeConfig) else diffusers.CogVideoXTransformer3DModel
    return kind(**dataclasses.asdict(config))


def shaken(model: Any, seed: int = 0) -> Any:
    """Every weight moved, so that none is a zero that hides a mistake."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=random))
    return model.eval()


def test_debug_sizes() -> None:
    assert sum(p.numel() for p in CogVideoXVae(VAE).parameters()) == 510_547
    assert sum(p.numel() for p in CogVideoXTransformer(DIT).parameters()) == 313_424


@pytest.mark.parametrize(
    "config",
    [VAE, VaeConfig(), DIT, *PUBLISHED.values()],
    ids=["debug vae", "vae", "debug dit", *PUBLISHED],
)
def test_keys_and_shapes_are_the_published_ones(config: VaeConfig | DitConfig) -> None:
    with torch.device("meta"):
        ours = CogVideoXVae(config) if isinstance(config, VaeConfig) else CogVideoXTransformer(config)
        assert shapes(ours) == shapes(theirs(config))


def test_convolutions_do_not_see_the_future() -> None:
    conv = CausalConv3d(2, 3, 3)
    x = torch.randn(1, 2, 6, 5, 5, generator=torch.Generator().manual_seed(0))
    changed = x.clone()
    changed[:, :, 4:] += 1
    with torch.no_grad():
        a, b = conv(x, Stream()), conv(changed, Stream())
    assert torch.equal(a[:, :, :4], b[:, :, :4]) and not torch.equal(a[:, :, 4:], b[:, :, 4:])


def test_later_chunks_do_not_change_earlier_latents_and_streams_equal_whole_videos() -> None:
    vae = shaken(CogVideoXVae(VAE))
    x = torch.randn(1, 3, 17, 16, 16, generator=torch.Generator().manual_seed(0))
    changed = x.clone()
    changed[:, :, 9:] += 1
    with torch.no_grad():
        a, b = vae.encode_moments(x)[0], vae.encode_moments(changed)[0]
        assert torch.equal(a[:, :, :3], b[:, :, :3]) and not torch.equal(a[:, :, 3:], b[:, :, 3:])
        streamed = torch.cat(list(vae.encode_stream([x[:, :, :9], x[:, :, 9:]])), dim=2).chunk(2, dim=1)[0]
        assert torch.equal(streamed, a)


def test_shapes_that_do_not_fit_are_refused() -> None:
    vae, model = CogVideoXVae(VAE), CogVideoXTransformer(SMALL_DIT)
    for shape in ((1, 3, 16, 32, 32), (1, 3, 17, 30, 32)):
        with pytest.raises(ValueError, match=r"must be 4k \+ 1"):
            vae.encode_moments(torch.zeros(shape))
    with pytest.raises(ValueError, match="not whole patches"):
        model(torch.zeros(1, 4, 3, 7, 12), torch.zeros(1), torch.zeros(1, 6, 24))
    with pytest.raises(ValueError, match="ofs must be given"):
        model(torch.zeros(1, 4, 3, 8, 12), torch.zeros(1), torch.zeros(1, 6, 24), ofs=torch.ones(1))
    with pytest.raises(ValueError, match="multiple of 16"):
        dataclasses.replace(SMALL_DIT, attention_head_dim=24)
    with pytest.raises(ValueError, match="temporal_compression_ratio 3"):
        dataclasses.replace(VAE, temporal_compression_ratio=3)


@pytest.mark.parametrize("config", [VAE, SMALL_DIT, TextConfig()], ids=lambda c: type(c).__name__)
def test_folders_go_out_and_come_back(config: Any, tmp_path: Path) -> None:
    build = {VaeConfig: CogVideoXVae, DitConfig: CogVideoXTransformer, TextConfig: HashedWordEncoder}[type(config)]
    model = build(config)
    generator.export(model, tmp_path / "model")
    back = generator.load(tmp_path / "model")
    assert back.config == config and not back.training
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), back.state_dict().values(), strict=True))
    if not isinstance(config, TextConfig):
        published = type(theirs(config)).from_pretrained(tmp_path / "model", local_files_only=True)
        assert shapes(published) == shapes(model)
        published.save_pretrained(tmp_path / "sharded", max_shard_size="100KB")
        assert list((tmp_path / "sharded").glob("*.index.json"))
        again = generator.load(tmp_path / "sharded")
        assert all(
            torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True)
        )


def test_folders_that_cannot_be_loaded_are_refused_in_a_sentence(tmp_path: Path) -> None:
    folder = generator.export(HashedWordEncoder(TextConfig()), tmp_path / "model")
    weights = folder / "diffusion_pytorch_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(b"\x80\x04pickled")
    with pytest.raises(ValueError, match="not a safetensors file"):
        generator.load(folder)
    weights.unlink()
    with pytest.raises(ValueError, match="no such file; only safetensors"):
        generator.load(folder)
    weights.write_bytes(whole)
    settings = (folder / "config.json").read_text()
    (folder / "config.json").write_text(settings.replace('"width": 32', '"width": 64'))
    with pytest.raises(ValueError, match="has another shape for"):
        generator.load(folder)
    (folder / "config.json").write_text(settings.replace("HashedWordEncoder", "os.system"))
    with pytest.raises(ValueError, match=r"class 'os\.system' is unknown"):
        generator.load(folder)
    with pytest.raises(ValueError, match=r"config\.json"):
        generator.load(tmp_path / "none")


def test_texts_are_words_not_bytes() -> None:
    encoder = HashedWordEncoder(TextConfig()).eval()
    assert encoder(["a cat"]).shape == (1, 16, 32)
    assert torch.equal(encoder(["A cat."]), encoder(["a  CAT"]))
    assert not torch.equal(encoder(["a cat"]), encoder(["a dog"]))
    assert not torch.equal(encoder(["cat dog"]), encoder(["dog cat"]))
    assert torch.equal(encoder(["", "x"])[0], encoder([""])[0])
    assert encoder(["word " * 100]).shape == (1, 16, 32)
    assert bucket("cat", 4096) == 1844, "the same in every process and on every machine"
