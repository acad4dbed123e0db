"""`vidcurate retrieve`: texts or chosen seeds find clips, and every entry has its share of the balanced set."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from curation.embedding import embedding_of
from curation.folder import Folder
from curation.recipes import moviegen
from curation.retrieve import Retrieval, read_picked, retrieve
from filters.learned import taxonomy
from manifests import families
from tests.test_cli import sentence, vidcurate
from tests.test_review import folder, table  # noqa: F401
from tests.test_similar import with_clip  # noqa: F401


def seeds(path: Path, *rows: tuple[str, str]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("entry", "clip_id"), *rows])
    return path


def test_chosen_seeds_find_their_like(folder: Folder, tmp_path: Path) -> None:  # noqa: F811
    clips = folder.clips.to_pandas()
    kept = clips[clips.kept].clip_id.tolist()
    chosen = seeds(tmp_path / "s.csv", ("one", kept[0]), ("two", kept[3]), ("two", kept[4]))
    done = vidcurate("retrieve", folder.store.root, "--seeds", chosen, "--finds", 6, "--count", 8)
    assert done.returncode == 0, done.stderr
    assert "8 in the balanced set" in done.stdout
    now = folder.clips.to_pandas().set_index("clip_id")
    assert now.retrieved_as.value_counts().to_dict() == {"one": 4, "two": 4}
    embedding = embedding_of(folder)
    rows = np.concatenate(list(embedding))
    vectors = dict(zip(embedding.ids(np.arange(len(rows))), rows, strict=True))
    nearest = sorted(kept, key=lambda clip: -vectors[clip] @ vectors[kept[0]])[:6]
    assert {clip for clip, names in now.retrieved_for.items() if names is not None and "one" in names} == set(nearest)
    assert now.retrieved_similarity[kept[0]] == pytest.approx(1, abs=1e-5)
    assert now[now.retrieved_as.notna()].kept.all()
    folder.judge(settings=["rules.blurred.low=0.1"])
    assert folder.clips.to_pandas().set_index("clip_id").retrieved_as.equals(now.retrieved_as), "a judgement keeps it"
    again = retrieve(folder, Retrieval(least=0.9999), [("alone", kept[0])])
    assert again.entries == (("alone", 1),) and families.read(folder.store, families.RETRIEVED).num_rows == 1


def test_texts_choose_seeds_that_find_clips(with_clip: Path, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "list.txt").write_text("## food\na cup\n## animals\na cat\na dog\n")
    done = vidcurate("retrieve", with_clip, "--taxonomy", tmp_path / "list.txt", "--finds", 3)
    assert done.returncode == 0, done.stderr
    folder = Folder(with_clip)  # noqa: F811
    now = folder.clips.to_pandas()
    assert now.retrieved_as.notna().sum() == 3 and set(now.retrieved_as) <= {"a cup", "a cat", "a dog"}
    whole = retrieve(folder, Retrieval(seeds=1))
    assert {name for name, _ in whole.entries} <= set(taxonomy.phrases()) and whole.taken == 3


def test_seeds_may_come_from_what_people_kept(with_clip: Path, tmp_path: Path) -> None:  # noqa: F811
    from curation.review import decisions

    folder = Folder(with_clip)  # noqa: F811
    (tmp_path / "list.txt").write_text("a cup\na cat\na dog\n")
    settings = Retrieval(str(tmp_path / "list.txt"), reviewed=True, finds=2)
    assert "nobody kept a clip in review yet" in sentence(vidcurate("retrieve", with_clip, "--reviewed"))
    clip = folder.clips["clip_id"][0].as_py()
    decisions.apply(folder.store, table(tmp_path / "d.csv", {"clip_id": clip, "decision": "keep"}))
    done = retrieve(folder, settings)
    assert len(done.entries) == 1, "one seed belongs to one entry"
    found = families.read(folder.store, families.RETRIEVED).to_pandas().set_index("clip_id")
    assert found.retrieved_similarity[clip] == pytest.approx(1, abs=1e-5) and len(found) == 2


def test_wrong_use_is_one_sentence(folder: Folder, tmp_path: Path) -> None:  # noqa: F811
    root = folder.store.root
    assert "ClipEmbedding()" in sentence(vidcurate("retrieve", root))
    assert "no such table of seeds" in sentence(vidcurate("retrieve", root, "--seeds", tmp_path / "none.csv"))
    (tmp_path / "bad.csv").write_text("name,clip\na,b\n")
    with pytest.raises(ValueError, match="are entry and clip_id"):
        read_picked(tmp_path / "bad.csv")
    with pytest.raises(ValueError, match="every line names an entry"):
        read_picked(seeds(tmp_path / "empty.csv", ("one", "")))
    with pytest.raises(ValueError, match="nobody: column descriptor was not measured"):
        retrieve(folder, Retrieval(), [("one", "nobody")])


def test_movie_gens_last_stage_has_the_subsets() -> None:
    assert [s.name for s in moviegen("sft").subsets] == ["sft", "sft_balanced", "sft_picked"]
    assert "clip_embedding" in moviegen("sft", learned=True).costly_schema.names
