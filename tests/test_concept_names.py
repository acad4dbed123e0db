"""Names of concepts in words."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from curation.concept_names import name_them
from curation.embedding import embedding_of
from curation.folder import Folder
from curation.recipe import check_columns
from curation.recipes import embedded, find
from curation.run import Result
from dedup.vectors import unit
from filters.learned import taxonomy
from tests.test_cli import vidcurate
from tests.test_report import page
from tests.test_similar import with_clip  # noqa: F401


def test_a_concept_is_called_what_lies_nearest_to_its_middle(with_clip: Path, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "list.txt").write_text("a cup\n<i>cats</i>\na rocket\na dog\n")
    done = vidcurate("report", with_clip, "--name-concepts", "--phrases", tmp_path / "list.txt")
    assert done.returncode == 0, done.stderr
    folder = Folder(with_clip)
    embedding = embedding_of(folder)
    model = embedding.model
    assert model is not None
    rows = unit(np.concatenate(list(embedding)))[0]
    ids = embedding.ids(np.arange(len(rows)))
    concepts = dict(zip(folder.clips["clip_id"].to_pylist(), folder.clips["concept"].to_pylist(), strict=True))
    words = taxonomy.phrases(str(tmp_path / "list.txt"))
    texts = model.read(tuple(f"a video of {word}" for word in words))
    names = json.loads((with_clip / "concepts.json").read_text())
    assert {concepts[clip] for clip in names} == set(concepts.values()) and len(names) == len(set(concepts.values()))
    for clip, name in names.items():
        own = np.array([row for row, i in zip(rows, ids, strict=True) if concepts[i] == concepts[clip]])
        middle = own.mean(axis=0)
        assert name == words[int((texts @ middle).argmax())]
        assert clip == max((i for i in ids if concepts[i] == concepts[clip]), key=lambda i: rows[ids.index(i)] @ middle)
        assert name in "".join(page(with_clip).text)
    ours = name_them(folder)
    assert len(ours) == len(names)
    (with_clip / "concepts.json").unlink()


def test_names_need_the_embedding(curated: Result) -> None:
    with pytest.raises(ValueError, match=r"ClipEmbedding\(\)"):
        name_them(Folder(curated.out))


def test_our_scenes_are_unlike_one_another() -> None:
    scenes = taxonomy.phrases(ours=taxonomy.SCENES)
    assert len(scenes) > 150 and len({s.removeprefix("a ").removeprefix("an ") for s in scenes}) == len(scenes)
    assert not set(scenes) & set(taxonomy.phrases())


def test_concepts_are_clustered_by_a_column_that_is_measured() -> None:
    learned = find("moviegen:high_res+learned")
    assert learned.concepts.vectors == "clip_embedding" and "clip_embedding" in learned.costly_schema.names
    check_columns(learned)
    with pytest.raises(ValueError, match=r"concepts.vectors reads column clip_embedding, which nothing measures"):
        check_columns(dataclasses.replace(embedded(), concepts=learned.concepts))
