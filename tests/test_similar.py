"""`vidcurate similar`: nearest clips by id and by words, from the vectors that a folder has."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from curation.embedding import embedding_of
from curation.folder import Folder
from curation.run import Result, run
from curation.similar import similar_to_clip, similar_to_text
from manifests.films.film import Film, render
from manifests.films.shots import Shot
from tests.test_cli import sentence, vidcurate


def test_neighbours_are_the_ones_that_all_cosines_give(curated: Result) -> None:
    folder = Folder(curated.out)
    table = curated.clips.to_pandas()
    embedding = embedding_of(folder)
    assert embedding.column == "descriptor"
    rows = np.concatenate(list(embedding))
    ids = np.array(embedding.ids(np.arange(len(rows))))
    assert set(table.clip_id) <= set(ids)
    asked = table[table.kept].clip_id.iloc[2]
    cosines = rows @ rows[ids == asked][0]
    expected = [i for i in ids[np.argsort(-cosines)] if i != asked and i in set(table.clip_id)]
    found = similar_to_clip(folder, asked, 7)
    assert [n.row["clip_id"] for n in found] == expected[:7]
    assert found[0].similarity == pytest.approx(cosines[ids == expected[0]][0], abs=1e-5)
    assert len(similar_to_clip(folder, asked, 1000)) == len(expected)


def test_the_nearest_of_a_copy_is_what_it_copies(curated: Result) -> None:
    copies = [row for row in curated.clips.to_pylist() if row["copy_of"]]
    group = {row["clip_id"] for row in curated.clips.to_pylist() if row["copy_group"] == copies[0]["copy_group"]}
    found = similar_to_clip(Folder(curated.out), copies[0]["clip_id"], 3)
    assert found[0].row["clip_id"] in group and found[0].similarity > 0.95


def test_clips_that_left_the_collection_are_not_shown(curated: Result, tmp_path: Path) -> None:
    shutil.copytree(curated.out, tmp_path / "out")
    folder = Folder(tmp_path / "out")
    clips = folder.clips
    few = clips.slice(0, 5)
    folder.store.replace_table("clips.parquet", [few])
    found = similar_to_clip(folder, few["clip_id"][0].as_py(), 20)
    assert {n.row["clip_id"] for n in found} == set(few["clip_id"].to_pylist()[1:])


@pytest.fixture(scope="module")
def with_clip(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder whose recipe measures CLIP embeddings, with a small random model."""
    pytest.importorskip("open_clip")
    from curation.recipes import embedded
    from filters.learned.clip import ClipEmbedding, ClipModel
    from tests import clip_models
    from tests.conftest import two_workers

    folder = tmp_path_factory.mktemp("similar")
    tiny = clip_models.make(folder)
    render(Film("one", (Shot("cat", 1.0), Shot("coffee", 1.0), Shot("rocket", 1.0))), folder / "films")
    (folder / "mine.py").write_text(
        "import dataclasses\nfrom curation.recipes import embedded\n"
        "from filters.learned.clip import ClipEmbedding, ClipModel\n"
        f"def recipe():\n    model = ClipModel({tiny['json']!r}, {tiny['safetensors']!r})\n"
        "    return dataclasses.replace(embedded(), signals=(), derived=(), rules=(), costly=(ClipEmbedding(model),))\n"
    )
    recipe = dataclasses.replace(
        embedded(),
        signals=(),
        derived=(),
        rules=(),
        costly=(ClipEmbedding(ClipModel(tiny["json"], tiny["safetensors"])),),
    )
    with two_workers() as client:
        origin = {"recipe": str(folder / "mine.py"), "set": []}
        run([str(folder / "films")], folder / "out", recipe, client=client, origin=origin)
    yield folder / "out"


def test_words_find_clips_by_the_model_that_measured_them(with_clip: Path) -> None:
    folder = Folder(with_clip)
    embedding = embedding_of(folder)
    assert embedding.column == "clip_embedding" and embedding.model is not None
    text = embedding.model.read(("a cup of coffee",))[0]
    rows = np.concatenate(list(embedding))
    ids = embedding.ids(np.arange(len(rows)))
    found = similar_to_text(folder, "a cup of coffee", 3)
    assert [n.row["clip_id"] for n in found] == [ids[k] for k in np.argsort(-(rows @ text))]
    assert [n.similarity for n in found] == pytest.approx(sorted(rows @ text, reverse=True), abs=1e-5)
    assert similar_to_clip(folder, ids[0], 1, column="descriptor")[0].row["clip_id"] in ids[1:]


def test_the_command_shows_a_table_and_a_page(with_clip: Path, tmp_path: Path) -> None:
    done = vidcurate("similar", with_clip, "--text", "<i>a cup</i>", "--html", tmp_path / "found" / "page.html")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("one.mp4") == 3 and "similarity" in done.stdout
    html = (tmp_path / "found" / "page.html").read_text()
    assert "<i>" not in html and "&lt;i&gt;a cup" in html and html.count("data:image/jpeg") == 3
    clip = Folder(with_clip).clips["clip_id"][1].as_py()
    shown = vidcurate("similar", with_clip, clip, "--count", 1)
    assert shown.stdout.count("one.mp4") == 1


def test_wrong_questions_are_one_sentence(curated: Result, with_clip: Path) -> None:
    clip = curated.clips["clip_id"][0].as_py()
    assert "one of the two" in sentence(vidcurate("similar", curated.out))
    assert "one of the two" in sentence(vidcurate("similar", curated.out, clip, "--text", "cat"))
    assert "no clip has" in sentence(vidcurate("similar", curated.out, "nonsense"))
    assert "ClipEmbedding()" in sentence(vidcurate("similar", curated.out, "--text", "a cat"))
    with pytest.raises(ValueError, match="column looks: this recipe does not measure it"):
        similar_to_clip(Folder(with_clip), clip, 1, column="looks")


def test_a_clip_without_a_vector_and_parts_that_are_gone(curated: Result, tmp_path: Path) -> None:
    shutil.copytree(curated.out, tmp_path / "out")
    folder = Folder(tmp_path / "out")
    with pytest.raises(ValueError, match="descriptor was not measured for this clip"):
        embedding_of(folder).of(["nobody"])
    shutil.rmtree(tmp_path / "out" / "stages")
    with pytest.raises(ValueError, match="are gone; run again"):
        similar_to_clip(folder, curated.clips["clip_id"][0].as_py(), 1)
