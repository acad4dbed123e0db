"""What CLIP is asked in words, with a small random model: against the same arithmetic written out with open_clip."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("open_clip")
torch = pytest.importorskip("torch")
import open_clip  # noqa: E402

from filters.learned import taxonomy  # noqa: E402
from filters.learned.clip import ClipEmbedding, ClipModel  # noqa: E402
from filters.learned.consistency import ClipConsistency  # noqa: E402
from filters.learned.zero_shot import PERSON, TAG_PROBES, PersonClip, Probe, Taxonomy, ZeroShotTags  # noqa: E402
from manifests.schema import TAG_NAMES  # noqa: E402
from manifests.types import Image  # noqa: E402
from tests import clip_models  # noqa: E402
from tests.test_clip import CLIP, CLOSE, frames, pictures, rgb  # noqa: E402
from tests.test_signals import check_contract  # noqa: E402


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return clip_models.make(tmp_path_factory.mktemp("zero"))


@pytest.fixture
def model(tiny: dict[str, str]) -> ClipModel:
    return ClipModel(tiny["json"], tiny["safetensors"])


def upstream(tiny: dict[str, str], images: list[Image], texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Cosines (pictures, texts) and probabilities, as in open_clip's own example."""
    network, _, preprocess = open_clip.create_model_and_transforms(Path(tiny["json"]).stem, pretrained=tiny["pt"])
    network.eval()
    with torch.no_grad():
        seen = network.encode_image(torch.stack([preprocess(rgb(i)) for i in images]), normalize=True)
        read = network.encode_text(open_clip.get_tokenizer("ViT-B-32")(texts), normalize=True)
        cosines = seen @ read.T
        return cosines.numpy(), (network.logit_scale.exp() * cosines).softmax(dim=-1).numpy()


def test_a_tag_is_the_share_of_the_true_descriptions(tiny: dict[str, str], model: ClipModel) -> None:
    images = pictures(4)
    answer = ZeroShotTags(model)([CLIP, CLIP], [frames(images), frames([])])
    assert set(answer) == {f"tag_{name}" for name in TAG_NAMES}
    for probe in TAG_PROBES:
        _, shares = upstream(tiny, images, [*probe.true, *probe.false])
        expected = float(shares[:, : len(probe.true)].sum(axis=1).mean())
        assert answer[f"tag_{probe.name}"] == [pytest.approx(expected, abs=CLOSE), None]
    _, shares = upstream(tiny, images, [*PERSON.true, *PERSON.false])
    people = PersonClip(model)([CLIP], [frames(images)])["person_clip"]
    assert people == [pytest.approx(float(shares[:, : len(PERSON.true)].sum(axis=1).mean()), abs=CLOSE)]


def test_descriptions_turn_the_answer(model: ClipModel) -> None:
    cat, cup = pictures(2)
    near, far = np.stack(model.encode([cat, cup]))
    texts = ("one", "two three", "a long walk by the sea", "red", "an old clock", "9")
    scores = model.read(texts) @ (near - far)
    likes, dislikes = texts[int(scores.argmax())], texts[int(scores.argmin())]
    probe, turned = Probe("person", (likes,), (dislikes,)), Probe("person", (dislikes,), (likes,))
    first, second = PersonClip(model, probe)([CLIP] * 2, [frames([cat]), frames([cup])])["person_clip"]
    assert first > second
    assert PersonClip(model, turned)([CLIP], [frames([cat])])["person_clip"] == [pytest.approx(1 - first, abs=1e-6)]


def test_connectivity_is_a_matter_of_neighbouring_frames(model: ClipModel) -> None:
    a, b = pictures(2)
    moved = np.roll(a, 3, axis=1)
    first, second, third = model.encode([a, moved, b])
    bound = float(max(first @ third, second @ third)) + 1e-3
    assert float(first @ second) > bound
    tags = ZeroShotTags(model, unrelated=bound)
    given = [frames([a, a, a]), frames([a, moved, a, moved]), frames([a, a, b, b]), frames([a, moved, b]), frames([a])]
    assert tags([CLIP] * 5, given)["tag_no_motion_connectivity"] == [1.0, 0.0, 1.0, 0.5, None]


@pytest.mark.parametrize("kind", [ClipEmbedding, ClipConsistency, ZeroShotTags, PersonClip, Taxonomy])
def test_contract(model: ClipModel, kind: type) -> None:
    check_contract(kind(model))


def test_probes_are_checked() -> None:
    with pytest.raises(ValueError, match="at least one description that is true and one that is false"):
        Probe("lecture", ("a lecture",), ())
    with pytest.raises(ValueError, match="give one probe for each tag but no_motion_connectivity"):
        ZeroShotTags(probes=TAG_PROBES[:4])


def test_a_taxonomy_finds_the_nearest_phrase(tiny: dict[str, str], model: ClipModel, tmp_path: Path) -> None:
    listed = tmp_path / "verbs.txt"
    listed.write_text("# verbs\nrunning fast\n\n  sleeping \nrunning fast\ncooking\n")
    signal = Taxonomy(model, str(listed), "someone {}")
    assert signal.phrases() == ("running fast", "sleeping", "cooking")
    images = pictures(3)
    answer = signal([CLIP] * 4, [frames([i]) for i in images] + [frames([])])
    cosines, _ = upstream(tiny, images, ["someone running fast", "someone sleeping", "someone cooking"])
    assert answer["taxonomy_phrase"] == [*(signal.phrases()[k] for k in cosines.argmax(axis=1)), None]
    assert answer["taxonomy_score"][:3] == pytest.approx(cosines.max(axis=1).tolist(), abs=CLOSE)
    assert answer["taxonomy_score"][3] is None
    assert Taxonomy(model)([CLIP], [frames(images)])["taxonomy_phrase"][0] in taxonomy.phrases()


def test_a_taxonomy_that_cannot_be_used_is_refused(model: ClipModel, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("# nothing\n\n")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    for name, says in (
        ("gone.txt", r"taxonomy .*gone.txt cannot be read \("),
        ("bytes.txt", r"taxonomy .*bytes.txt cannot be read \("),
        ("empty.txt", "taxonomy .*empty.txt holds no phrases; write one a line"),
    ):
        with pytest.raises(ValueError, match=says):
            Taxonomy(model, str(tmp_path / name)).prepare()
    with pytest.raises(ValueError, match="where the phrase belongs"):
        Taxonomy(model, template="a photo")
