"""Negative tags: features and weights, training and its command, the list of names, and what carries which tag."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from curation.cli import app
from filters.tags.fit import FEATURES, best_threshold, fit, lifted, parts, regress
from filters.tags.model import SHIPPED, Classifier, Feature, TagModel, load
from filters.tags.negative import QUESTIONS, NegativeTags, TagList, Thresholds
from manifests.films.tagged import UNSEEN, tagged_films
from manifests.films.tricks import TRICKS
from manifests.schema import TAG_NAMES, TAGS
from manifests.store import Store
from manifests.types import Derived
from tests.test_signals import all_signals

COLUMNS = sorted({feature.column for features in FEATURES.values() for feature in features})


def clips(**columns: list[Any]) -> pa.Table:
    count = len(next(iter(columns.values())))
    return pa.table({"clip_id": [f"c{k}" for k in range(count)], "uri": [f"f{k}.mp4" for k in range(count)], **columns})


# -- features and weights ---------------------------------------------------------------------------------------------


def test_a_feature_is_a_ramp() -> None:
    table = clips(shake=[0.0, 20.0, 40.0, 100.0, None])
    values = Feature("shake", 20.0, 60.0).values(table)
    assert values[:4].tolist() == [0, 0, 0.5, 1] and np.isnan(values[4])
    logarithmic = Feature("shake", 10.0, 40.0, log=True).values(table)
    assert logarithmic[:4] == pytest.approx([0, 0.5, 1, 1])
    assert np.isnan(Feature("gone").values(table)).all()
    named = Feature("border_kind", equals="blurred").values(clips(border_kind=["blurred", "plain", None]))
    assert named.tolist() == [1, 0, 0]
    with pytest.raises(ValueError, match="low must lie below high"):
        Feature("shake", 2.0, 1.0)


def test_scores_by_hand_and_what_is_missing() -> None:
    features = (Feature("shake", 0.0, 10.0, weight=3.0, mean=0.25), Feature("noise", 0.0, 10.0, weight=1.0, mean=0.5))
    classifier = Classifier("low_quality", features, bias=-2.0)
    logits, lacks, missing = classifier.logits(clips(shake=[10.0, None, None], noise=[0.0, 10.0, None]))
    assert logits == pytest.approx([1.0, 3 * 0.25 + 1 - 2, 3 * 0.25 + 0.5 - 2])
    assert missing == pytest.approx([0, 0.75, 1])
    assert lacks.tolist() == [[False, False], [True, False], [True, True]]


def test_weights_come_back_from_their_file(tmp_path: Path) -> None:
    model = TagModel(
        (Classifier("lecture", (Feature("talking_head", 0.1, 0.5, weight=2.5, mean=0.125),), -1.5, (3, 4)),), "mine"
    )
    model.save(tmp_path / "tags.json")
    assert load(str(tmp_path / "tags.json")) == model


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is no JSON file of tag weights"),
        ("[]", "holds no tag weights of format 1"),
        ('{"format": 2, "tags": {}}', "holds no tag weights of format 1"),
        ('{"format": 1, "tags": {"boring": {}}}', "there is no tag 'boring'"),
        ('{"format": 1, "tags": {"lecture": {"features": [{}], "bias": 0}}}', "are not what they should be"),
        ('{"format": 1, "tags": {"lecture": {"bias": 0}}}', "are not what they should be"),
        (
            '{"format": 1, "tags": {"lecture": {"features": [{"column": "x", "weight": NaN}], "bias": 0}}}',
            "a number that is none",
        ),
    ],
)  # fmt: skip
def test_a_file_of_weights_that_is_none(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "tags.json").write_text(text)
    with pytest.raises(ValueError, match=said) as caught:
        NegativeTags(weights=str(tmp_path / "tags.json"))(clips(shake=[1.0]))
    assert "\n" not in str(caught.value)


def test_the_shipped_weights_read_columns_that_signals_measure() -> None:
    model = load()
    assert [c.tag for c in model.classifiers] == list(TAG_NAMES) and model.about
    measured = {name for kind in all_signals() if kind.__module__.startswith("filters") for name in kind.schema.names}
    for classifier in model.classifiers:
        assert classifier.features and min(classifier.trained_on) >= 15
        for feature in classifier.features:
            assert feature.column in measured, feature.column
            assert feature.weight * feature.sign >= 0, "no weight goes against its sign"
    assert SHIPPED.with_suffix(".md").read_text().startswith("# "), "weights ship with a card"


# -- the shipped weights ----------------------------------------------------------------------------------------------

FILM = {
    "seam": 0.4, "seam_moving": 0.3, "inset_frame": 0.0, "mirrored": 0.2, "repeated": 0.1, "cold_colors": -0.4,
    "flashes_per_s": 0.0, "border_kind": None, "letterbox_fraction": 0.0, "few_colors": 0.3, "ruled_lines": 0.0,
    "tilted_screen": 0.0, "text_area": 0.0, "talking_head": 0.0, "static_fraction": 0.0, "slideshow": 0.0,
    "motion_vmaf": 2.0, "shake": 8.0, "sharpness": 0.7, "noise": 0.5, "grid_steps": 0.5, "exposure": 0.45,
    "contrast": 0.65, "aesthetic_photo": 0.85, "speech_fraction": None, "still_area": 0.3, "moire": 1.8,
    "flat_area": 0.2, "quantizer": 24.0,
}  # fmt: skip
"""What a plain film measures."""


@pytest.mark.parametrize(
    ("traces", "carried"),
    [
        ({}, set()),
        ({"mirrored": 1.0}, {"editing"}),
        ({"seam": 1.0, "seam_moving": 0.75}, {"editing"}),
        ({"inset_frame": 1.0}, {"editing"}),
        ({"letterbox_fraction": 0.6, "border_kind": "plain"}, {"editing"}),
        ({"letterbox_fraction": 0.36, "border_kind": "blurred"}, {"editing"}),
        ({"cold_colors": 0.85}, {"editing"}),
        ({"cold_colors": 0.58}, set()),  # a launch before a blue sky
        ({"quantizer": 46.0}, {"low_quality"}),
        # Of equal mean luma: a place that is dark all over, and one with lamps in it.
        ({"exposure": 0.14, "contrast": 0.33, "aesthetic_photo": 0.65}, {"low_quality"}),
        ({"exposure": 0.16, "contrast": 0.75, "aesthetic_photo": 0.85}, set()),
        ({"exposure": 0.58, "contrast": 0.38, "aesthetic_photo": 0.74}, set()),  # a pale room is no dark one
        ({"slideshow": 1.0, "motion_vmaf": 0.4}, {"no_motion_connectivity"}),
    ],
)
def test_one_clear_trace_is_enough_for_a_tag(traces: dict[str, Any], carried: set[str]) -> None:
    table = clips(**{name: [value] for name, value in (FILM | traces).items()})
    assert set(NegativeTags()(table)["tags"][0].as_py()) == carried


def test_edits_that_leave_no_trace_are_not_taught() -> None:
    films = tagged_films(13, 1)
    assert {f.kind: f.labels["editing"] for f in films if f.name.startswith("editing")} == {
        kind: None if kind in UNSEEN else True for kind in TRICKS
    }
    credits = next(f for f in films if f.kind == "credits")
    assert credits.labels["no_motion_connectivity"] is False, "credits roll"


# -- scores and names -------------------------------------------------------------------------------------------------


def lists(columns: dict[str, pa.Array]) -> dict[str, list[Any]]:
    return {name: values.to_pylist() for name, values in columns.items()}


def test_six_scores_and_their_names(tmp_path: Path) -> None:
    one = tuple(Classifier(tag, (Feature("shake", 0.0, 10.0, weight=4.0),), -2.0) for tag in TAG_NAMES)
    TagModel(one).save(tmp_path / "tags.json")
    tags = NegativeTags(str(tmp_path / "tags.json"), Thresholds(lecture=0.95))
    assert isinstance(tags, Derived) and not tags.early and hash(tags) is not None
    found = lists(tags(clips(shake=[0.0, 10.0, None])))
    assert set(found) == set(TAGS.names)
    assert found["tag_editing"] == [pytest.approx(0.1192, abs=1e-4), pytest.approx(0.8808, abs=1e-4), None]
    assert found["tags"] == [[], [name for name in TAG_NAMES if name != "lecture"], None]
    assert found["tags_error"][:2] == [None, None] and "lecture: shake not measured" in found["tags_error"][2]


def test_a_tag_without_a_classifier_says_so(tmp_path: Path) -> None:
    TagModel((Classifier("lecture", (Feature("shake", 0.0, 10.0, weight=4.0),), -2.0),)).save(tmp_path / "tags.json")
    found = lists(NegativeTags(str(tmp_path / "tags.json"))(clips(shake=[10.0])))
    assert found["tags"] == [["lecture"]] and found["tag_editing"] == [None]
    assert "editing: the weights have no such classifier" in found["tags_error"][0]


def test_the_list_of_names_whoever_gave_the_scores() -> None:
    table = clips(tag_lecture=[0.7, 0.4, None], tag_editing=[0.5, None, None])
    assert lists(TagList()(table)) == {"tags": [["editing", "lecture"], [], None]}
    assert lists(TagList(Thresholds(editing=0.6))(table))["tags"][0] == ["lecture"]
    assert lists(TagList()(clips(shake=[1.0]))) == {"tags": [None]}


def test_one_question_for_every_tag() -> None:
    assert [q.tag for q in QUESTIONS] == list(TAG_NAMES)
    assert all(q.question.endswith("?") and q.column in TAGS.names for q in QUESTIONS)


# -- training ---------------------------------------------------------------------------------------------------------


def test_regression_equals_scikit_learns_where_signs_do_not_bind() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(0)
    values = rng.random((200, 3))
    truth = values @ [3.0, -2.0, 0.5] + rng.normal(0, 0.5, 200) > 1.2
    balance = np.where(truth, 0.5 / truth.sum(), 0.5 / (~truth).sum())
    theirs = linear.LogisticRegression(C=1 / 0.01, tol=1e-10, max_iter=10_000).fit(values, truth, sample_weight=balance)
    weights, bias = regress(values, truth, np.array([1, -1, 1]), l2=0.01)
    assert weights == pytest.approx(theirs.coef_[0], rel=1e-3, abs=1e-3)
    assert bias == pytest.approx(theirs.intercept_[0], rel=1e-3, abs=1e-3)
    against, _ = regress(values, truth, np.array([1, 1, 1]), l2=0.01)
    assert against[1] == 0 and against[0] > 0


def test_rare_traces_that_leave_no_doubt_suffice_unless_labels_say_otherwise() -> None:
    features = (Feature("flat_area"), Feature("mirrored", alone=True), Feature("exposure", sign=-1, alone=True))
    truth = np.arange(200) < 60
    values = np.column_stack([np.where(truth, 0.9, 0.1), np.zeros(200), np.ones(200)])
    values[0], values[1] = [0.1, 1.0, 1.0], [0.1, 0.0, 0.0]  # one film has mirrored halves, one is dark
    learnt, bias = np.array([6.0, 0.5, -0.5]), -2.5
    assert (values[:2] @ learnt + bias < 0).all(), "too rare to be learnt from"
    said = values @ (found := lifted(features, values, truth, learnt, bias))[0] + found[1]
    assert said[:2] == pytest.approx([1.0, 1.0]) and (said[2:60] > 0).all() and (said[60:] < 0).all()
    values[100:120, 1] = 1.0  # these are labelled as honest
    weights, _ = lifted(features, values, truth, learnt, bias)
    assert weights[1] == 0.5 and weights[2] < -3


def test_the_threshold_is_in_the_widest_gap() -> None:
    scores, truth = np.array([0.0, 1.0, 2.0, 6.0, 7.0]), np.array([False, False, False, True, True])
    assert best_threshold(scores, truth) == 4.0
    assert best_threshold(np.zeros(3), np.array([True, False, True])) == 0.0


def test_films_stay_together_and_tags_are_spread() -> None:
    rng = np.random.default_rng(1)
    films = np.repeat([f"f{k}" for k in range(40)], 3)
    truth = np.repeat(np.arange(40) < 10, 3)
    part = parts(truth, films, 10, rng)
    assert all(len(set(part[films == name])) == 1 for name in set(films))
    assert all(truth[part == k].sum() == 3 and (~truth[part == k]).sum() == 9 for k in range(10))


def labelled(count: int = 60) -> tuple[pa.Table, list[dict[str, Any]]]:
    """Clips of which every second one shakes, and labels that say so."""
    rng = np.random.default_rng(2)
    shaky = np.arange(count) % 2 == 0
    columns: dict[str, list[Any]] = {name: [None] * count for name in COLUMNS}
    columns["shake"] = np.where(shaky, rng.uniform(60, 90, count), rng.uniform(0, 15, count)).tolist()
    columns["sharpness"] = rng.uniform(0.3, 0.8, count).tolist()
    columns["border_kind"] = pa.nulls(count, pa.string())  # type: ignore[assignment]
    labels = [{"clip_id": f"c{k}", "low_quality": bool(s), "lecture": None} for k, s in enumerate(shaky)]
    return clips(**columns), labels


def test_training_finds_what_is_there_to_find() -> None:
    table, labels = labelled()
    result = fit(table, {tag: [row[tag] for row in labels] for tag in ("low_quality", "lecture")}, "a test")
    (classifier,), (test,) = result.model.classifiers, result.tests
    assert {f.column for f in classifier.features} == {"shake", "sharpness"}, "columns without a value are left out"
    assert classifier.trained_on == (27, 27) and (test.tp, test.fp, test.tn, test.fn) == (3, 0, 3, 0)
    assert test.accuracy == 1 and "0 labelled clips with it" in result.skipped["lecture"]
    again = fit(table, {"low_quality": [row["low_quality"] for row in labels]}, "a test")
    assert again.model == result.model, "the same labels give the same weights"


# -- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    Store(tmp_path / "out").write_table("clips.parquet/part-00000.parquet", labelled()[0])
    return tmp_path / "out"


def run_fit(labels: Path, manifest: Path) -> Any:
    return CliRunner().invoke(
        app, ["tags", "fit", str(labels), "--manifest", str(manifest), "--out", str(manifest / "w.json")]
    )


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_fit_from_the_command_line(kind: str, manifest: Path, tmp_path: Path) -> None:
    rows = labelled()[1]
    path = tmp_path / f"labels.{kind}"
    if kind == "csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["uri", "tag_low_quality"])
            writer.writeheader()
            writer.writerows(
                {"uri": f"f{k}.mp4", "tag_low_quality": "yes" if row["low_quality"] else "no"}
                for k, row in enumerate(rows)
            )
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    done = run_fit(path, manifest)
    assert done.exit_code == 0, done.output
    assert "low_quality" in done.output and "accuracy" in done.output
    assert load(str(manifest / "w.json")).about == f"60 clips labelled in labels.{kind}"
    found = lists(NegativeTags(str(manifest / "w.json"))(labelled()[0]))
    assert [tags == ["low_quality"] for tags in found["tags"]] == [row["low_quality"] for row in rows]


def _write(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else ["uri"])
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "holds no labels"),
        ([{"uri": "f0.mp4", "boring": "true"}], "needed are clip_id or uri"),
        ([{"name": "f0.mp4", "lecture": "true"}], "needed are clip_id or uri"),
        ([{"uri": "f0.mp4", "lecture": "perhaps"}], "'perhaps' is no label"),
        ([{"uri": "other.mp4", "lecture": "true"}], "have no clip in common"),
        (
            [{"uri": f"f{k}.mp4", "low_quality": "true"} for k in range(60)],
            "no tag can be trained: low_quality: 0 labelled clips without it",
        ),
    ],
)  # fmt: skip
def test_labels_that_cannot_be_used(rows: list[dict[str, Any]], said: str, manifest: Path, tmp_path: Path) -> None:
    done = run_fit(_write(tmp_path / "labels.csv", rows), manifest)
    assert isinstance(done.exception, ValueError) and said in str(done.exception)
    assert "\n" not in str(done.exception)


def test_a_missing_file_of_labels_and_a_folder_without_manifest(manifest: Path, tmp_path: Path) -> None:
    gone = run_fit(tmp_path / "gone.csv", manifest)
    assert "no such file of labels" in str(gone.exception)
    (tmp_path / "noise.parquet").write_bytes(b"no parquet")
    assert "cannot be read" in str(run_fit(tmp_path / "noise.parquet", manifest).exception)
    labels = _write(tmp_path / "labels.csv", [{"uri": "f0.mp4", "lecture": "true"}])
    assert "no clips.parquet here" in str(run_fit(labels, tmp_path).exception)


# -- from films to tags -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_rendered_films_get_the_tags_that_they_were_made_for(tmp_path: Path) -> None:
    """Films of a seed that the shipped weights have not seen, through a whole run."""
    from benchmarks.quality.tags import by_film, tag_recipe
    from curation.run import run
    from manifests.films.tagged import tagged_films, write_tagged

    wanted = {
        "editing_000_split", "no_motion_connectivity_000_frozen", "low_quality_000_shaken", "lecture_000_head",
        "text_dominated_000_page_over", "noisy_screenshot_000_filmed", "clean_000_plain", "clean_002_boxed",
    }  # fmt: skip
    films = [film for film in tagged_films(1, 3, seed=3) if film.name in wanted]
    assert len(films) == len(wanted)
    labels = write_tagged(tmp_path / "films", films)
    result = run([str(labels.parent)], tmp_path / "out", tag_recipe(), workers=1, measure_all=True)
    found = {path.stem: clips for path, clips in by_film(result.clips).items()}
    for film in films:
        carried = set.intersection(*(set(clip["tags"]) for clip in found[film.name]))
        meant = {tag for tag, value in film.labels.items() if value}
        open_ones = {tag for tag, value in film.labels.items() if value is None}
        assert carried - open_ones == meant, film.name
    assert all(clip["tags_error"] is None for clips in found.values() for clip in clips)
    again = CliRunner().invoke(
        app, ["tags", "fit", str(labels), "--manifest", str(tmp_path / "out"), "--out", str(tmp_path / "w.json")]
    )
    assert isinstance(again.exception, ValueError) and "at least 5 are needed" in str(again.exception)
