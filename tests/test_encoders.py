"""Published text encoders in their published layouts: what they say, what is remembered, and what is refused."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from pathlib import Path

import pytest
import sentencepiece
import torch
import transformers

from generator import encoders
from generator.encoders import Cached, Encoder, ImageEncoder, LoadedEncoder, quoted
from generator.text import HashedWordEncoder, TextConfig
from manifests.offline import without_downloads
from tests import clip_models, tiny_encoders

TEXTS = ["a red circle moves right", "birds", ""]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("encoders")
    return {
        "t5": tiny_encoders.t5(root / "pipeline"),
        "byt5": tiny_encoders.byt5(root / "byt5"),
        "clip": tiny_encoders.clip(root / "clip"),
        "open_clip": Path(clip_models.make(root)["folder"]),
    }


@pytest.fixture(scope="module")
def t5(folders: dict[str, Path]) -> LoadedEncoder:
    return encoders.t5_xxl(str(folders["t5"]), length=24).load()


def test_t5_sees_its_padding_only_where_cogvideox_has_it_so(folders: dict[str, Path], t5: LoadedEncoder) -> None:
    said = t5(TEXTS)
    assert said.sequence.shape == (3, 24, 32) and said.pooled is None
    assert said.mask.sum(1).tolist() == _lengths(folders)
    network = transformers.T5EncoderModel.from_pretrained(folders["t5"]).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders["t5"].parent / "tokenizer")
    ids = tokenizer(TEXTS, padding="max_length", max_length=24, truncation=True, return_tensors="pt")
    pieces = sentencepiece.SentencePieceProcessor(str(folders["t5"].parent / "tokenizer" / "spiece.model"))
    assert ids.input_ids[0][ids.attention_mask[0] > 0].tolist() == [*pieces.encode(TEXTS[0]), pieces.eos_id()]
    with torch.no_grad():
        assert torch.allclose(said.sequence, network(ids.input_ids)[0], atol=1e-6)
        masked = encoders.t5_xxl_masked(str(folders["t5"]), length=24).load()(TEXTS)
        assert torch.allclose(masked.sequence, network(ids.input_ids, ids.attention_mask)[0], atol=1e-6)
    assert not torch.allclose(masked.sequence[0], said.sequence[0], atol=1e-2)


def _lengths(folders: dict[str, Path]) -> list[int]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders["t5"].parent / "tokenizer")
    lengths = [len(tokenizer(text).input_ids) for text in TEXTS]
    assert lengths[2] == 1 and lengths[0] > lengths[1] > 1, "the empty text is its end token"
    return lengths


def test_byt5_reads_what_is_to_be_shown(folders: dict[str, Path]) -> None:
    encoder = encoders.byt5(str(folders["byt5"]), length=10).load()
    said = encoder(['a sign that says "OPEN"', "no sign", "a cup with “Hi” and 'you'"])
    assert said.mask.sum(1).tolist() == [5, 1, 7], "one token per byte, and the end"
    torch.testing.assert_close(said.sequence[0], encoder(["'OPEN' is on the door"]).sequence[0])
    assert quoted("it's the dogs' own") == "" and quoted("《开》 on 「門」") == "开 門"


def test_clip_is_stretched_to_long_captions(folders: dict[str, Path]) -> None:
    short = Encoder(str(folders["clip"]), "clip", 77).load()
    said = short(TEXTS)
    assert said.sequence.shape == (3, 77, 32) and said.pooled is not None
    assert torch.equal(said.pooled[0], said.sequence[0, int(said.mask[0].sum()) - 1]), "pooled where the text ends"
    long = encoders.metaclip(str(folders["clip"])).load()
    caption = "a red circle moves right " * 8
    assert int(long([caption]).mask.sum()) > 100 > 77 == int(short([caption]).mask.sum())
    positions = [e.network.get_parameter(_position(e)) for e in (short, long)]
    assert positions[1].shape[0] == 256
    for end in (0, -1):
        assert torch.allclose(positions[0][end], positions[1][end])


def _position(encoder: LoadedEncoder) -> str:
    return next(name for name, _ in encoder.network.named_parameters() if "position_embedding" in name)


def test_open_clip_gives_its_sequence_and_its_last_token(folders: dict[str, Path]) -> None:
    encoder = encoders.clip_big_g(str(folders["open_clip"])).load()
    said = encoder(TEXTS)
    assert said.sequence.shape == (3, 77, 32) and said.pooled is not None and said.pooled.shape == (3, 32)
    import open_clip

    with torch.no_grad():
        theirs = encoder.network.encode_text(open_clip.get_tokenizer("ViT-B-32")(TEXTS))
        assert torch.allclose(said.pooled @ encoder.network.text_projection, theirs, atol=1e-5)
    assert said.mask.sum(1).tolist() == [7, 3, 2], "start, words, end"


def test_images_are_scaled_cut_and_projected(folders: dict[str, Path]) -> None:
    encoder = ImageEncoder(str(folders["clip"])).load()
    film = torch.rand(2, 3, 48, 80, generator=torch.Generator().manual_seed(0)) * 2 - 1
    said = encoder(film)
    assert said.shape == (2, 16)
    assert torch.allclose(said[1:], encoder(film[1:]), atol=1e-6)
    edges = film.clone()
    edges[..., :8] = edges[..., -8:] = 1.0
    assert torch.allclose(encoder(edges), said, atol=1e-4), "the middle of a wide picture is what it sees"
    assert not torch.allclose(encoder(-film), said, atol=1e-2)


def test_what_was_said_is_remembered_by_content(
    t5: LoadedEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = Cached(t5, tmp_path / "cache")([*TEXTS, TEXTS[0]])
    asked: list[str] = []
    real = LoadedEncoder.__call__
    monkeypatch.setattr(LoadedEncoder, "__call__", lambda self, texts: asked.extend(texts) or real(self, texts))
    again = Cached(t5, tmp_path / "cache")(["clouds", *TEXTS])
    assert asked == ["clouds"]
    assert torch.equal(again.sequence[1:], said.sequence[:3]) and torch.equal(again.mask[1:], said.mask[:3])
    assert torch.equal(said.sequence[0], said.sequence[3]) and said.pooled is None


def test_pooled_embeddings_are_remembered_too(folders: dict[str, Path], tmp_path: Path) -> None:
    encoder = encoders.clip_big_g(str(folders["open_clip"])).load()
    cached = Cached(encoder, tmp_path)
    assert torch.equal(cached(TEXTS).pooled, encoder(TEXTS).pooled) and torch.equal(
        cached(TEXTS[::-1]).pooled, encoder(TEXTS[::-1]).pooled
    )


@pytest.mark.parametrize("change", ["weights", "length", "blind"])
def test_embeddings_of_another_encoder_are_refused(
    change: str, folders: dict[str, Path], t5: LoadedEncoder, tmp_path: Path
) -> None:
    Cached(t5, tmp_path / "cache")(TEXTS)
    settings = {"length": {"length": 25}, "blind": {"blind": False}}.get(change, {})
    other = dataclasses.replace(t5.settings, **settings).load()
    if change == "weights":
        with torch.no_grad():
            other.network.get_input_embeddings().weight[:8] += 0.5
    with pytest.raises(ValueError, match=rf"text embeddings were made by text encoder {t5.fingerprint}, but .* in use"):
        Cached(other, tmp_path / "cache")
    Cached(t5.settings.load(), tmp_path / "cache")


def test_a_model_that_cannot_be_had_is_said_in_a_sentence(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="text encoders are t5, clip, open_clip; 'bert' is not one"):
        Encoder("x", "bert", 3)
    with without_downloads():
        for encoder in (
            encoders.t5_xxl("nobody/nothing"),
            encoders.clip_big_g("ViT-bigG-14"),
            encoders.metaclip("no/one"),
        ):
            with pytest.raises(ValueError, match=r"cannot be loaded|downloads are switched off"):
                encoder.load()
    pickled = tmp_path / "pickled"
    shutil.copytree(folders["byt5"], pickled)
    weights = torch.nn.Linear(1, 1).state_dict()
    (pickled / "model.safetensors").unlink()
    torch.save(weights, pickled / "pytorch_model.bin")
    with pytest.raises(ValueError, match=rf"encoder {pickled} cannot be loaded .*safetensors"):
        Encoder(str(pickled), "t5", 8).load()


def test_a_vocabulary_that_cannot_be_read_is_no_vocabulary(folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(folders["t5"].parent, tmp_path / "pipeline")
    spiece = tmp_path / "pipeline" / "tokenizer" / "spiece.model"
    spiece.unlink()
    with pytest.raises(ValueError, match=r"tokenizer of .* (knows no words|cannot be loaded)"):
        encoders.t5_xxl(str(tmp_path / "pipeline" / "text_encoder")).load()


def test_the_encoder_without_a_download_answers_alike() -> None:
    encoder = HashedWordEncoder(TextConfig(length=6, width=8)).eval()
    with torch.no_grad():
        said = encoder.embed(["a red circle", "", "one two three four five six seven"])
        assert torch.equal(said.sequence, encoder(["a red circle", "", "one two three four five six seven"]))
    assert said.mask.sum(1).tolist() == [3, 1, 6] and said.pooled is not None
    for row, last in enumerate((2, 0, 5)):
        assert torch.equal(said.pooled[row], said.sequence[row, last])


def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=r"needs transformers .*pip install 'vidcurate\[learned\]'"):
        encoders.t5_xxl().load()
