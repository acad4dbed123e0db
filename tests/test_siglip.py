"""Aesthetic Predictor V2.5's layout: a small random SigLIP as transformers saves it, and a random head."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from torch import nn  # noqa: E402

from filters.learned.siglip import SiglipAesthetics, SiglipModel  # noqa: E402
from tests.test_clip import CLIP, CLOSE, frames, pictures, rgb  # noqa: E402
from tests.test_signals import check_contract  # noqa: E402


def head(size: int) -> nn.Module:
    """Its file holds the state of a module with this one as `scoring_head`."""
    stack = [
        nn.Linear(size, 1024),
        nn.Dropout(0.5),
        nn.Linear(1024, 128),
        nn.Dropout(0.5),
        nn.Linear(128, 64),
        nn.Dropout(0.5),
        nn.Linear(64, 16),
        nn.Dropout(0.2),
        nn.Linear(16, 1),
    ]
    return nn.ModuleDict({"scoring_head": nn.Sequential(*stack)})


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A whole SigLIP model as published, its image tower alone, heads."""
    folder = tmp_path_factory.mktemp("siglip")
    torch.manual_seed(11)
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.SiglipConfig(
        vision_config={**small, "image_size": 56, "patch_size": 14}, text_config={**small, "vocab_size": 100}
    )
    whole = transformers.SiglipModel(config)
    with torch.no_grad():  # make differences between pictures count
        whole.vision_model.embeddings.patch_embedding.weight *= 5
    whole.save_pretrained(folder / "whole")
    tower = transformers.SiglipVisionModel.from_pretrained(folder / "whole")
    tower.save_pretrained(folder / "tower")
    for name in ("whole", "tower"):
        transformers.SiglipImageProcessor(size={"height": 56, "width": 56}).save_pretrained(folder / name)
    torch.save(head(32).state_dict(), folder / "head.pth")
    torch.save(head(48).state_dict(), folder / "wide.pth")
    return {p.name: p for p in folder.iterdir()}


@pytest.mark.parametrize("layout", ["whole", "tower"])
def test_scores_are_those_of_the_published_code(saved: dict[str, Path], layout: str) -> None:
    images = [*pictures(2, 90, 160), *pictures(6, 90, 160)[4:]]
    tower = transformers.SiglipVisionModel.from_pretrained(saved["whole"]).eval()
    processor = transformers.SiglipImageProcessor.from_pretrained(saved["whole"])
    scorer = head(32).eval()
    scorer.load_state_dict(torch.load(saved["head.pth"], weights_only=True))
    with torch.no_grad():
        pooled = tower(**processor([rgb(i) for i in images], return_tensors="pt")).pooler_output
        scores = scorer["scoring_head"](pooled / pooled.norm(dim=-1, keepdim=True)).ravel().numpy()
    assert np.ptp(scores) > 1e-3, "pictures differ in score"
    signal = SiglipAesthetics(SiglipModel(str(saved[layout])), str(saved["head.pth"]))
    signal.prepare()
    answer = signal([CLIP, CLIP, CLIP], [frames(images), frames([]), frames(images[1:2])])
    expected = [
        pytest.approx(float(scores.mean()), abs=CLOSE / 5),
        None,
        pytest.approx(float(scores[1]), abs=CLOSE / 5),
    ]
    assert answer == {"aesthetic_siglip": expected}


def test_contract(saved: dict[str, Path]) -> None:
    check_contract(SiglipAesthetics(SiglipModel(str(saved["tower"])), str(saved["head.pth"])))


def test_what_cannot_be_loaded_is_said_in_one_sentence(
    saved: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIDCURATE_OFFLINE", "1")
    bert = transformers.BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=9
    )
    transformers.BertModel(bert).save_pretrained(tmp_path / "bert")
    good = str(saved["tower"])
    for model, scorer, says in (
        ("nobody/no-such-siglip", "head.pth", r"SigLIP model nobody/no-such-siglip cannot be loaded \("),
        (str(tmp_path / "gone"), "head.pth", r"SigLIP model .*gone cannot be loaded \("),
        (str(tmp_path / "bert"), "head.pth", r"SigLIP model .*bert cannot be loaded \("),
        (good, "wide.pth", "wide.pth scores embeddings of 48 numbers, and .* makes 32; choose the head"),
    ):
        with pytest.raises(ValueError, match=says) as refusal:
            SiglipAesthetics(SiglipModel(model), str(saved[scorer])).prepare()
        assert "\n" not in str(refusal.value)
