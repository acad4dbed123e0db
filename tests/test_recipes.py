"""The recipes of the four systems: their published numbers, and that every one of them runs."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
from distributed import Client

from curation import recipes
from curation.recipe import Recipe, check_columns
from curation.recipes import find
from curation.recipes.moviegen import AT_180
from curation.report.numbers import funnel
from curation.run import run
from filters.learned.laion import LaionAesthetics
from filters.motion.raft import RaftMotion
from filters.motion.vectors import MotionVectors
from filters.rules import Rule
from manifests.films.film import Truth
from manifests.schema import TAG_NAMES, may_be_null

NAMES = (
    "embedded", "cogvideox", "moviegen:low_res", "moviegen:high_res", "moviegen:sft", "stiv",
    "easyanimate:paper", "easyanimate:code",
)  # fmt: skip


def rule(recipe: Recipe, name: str) -> Rule:
    return next(r for r in recipe.rules if r.name == name)


@pytest.mark.parametrize("name", [*NAMES, *(f"{n}+learned" for n in NAMES[1:])])
def test_every_recipe_measures_what_its_rules_read(name: str) -> None:
    recipe = find(name)
    check_columns(recipe)
    assert recipe.name == name.removesuffix("+learned") and (find(name).__doc__ or recipe.rules)


@pytest.mark.parametrize(
    ("name", "rule_name", "column", "low", "high"),
    [
        ("moviegen:low_res", "resolution", "short_side", 720, None),
        ("moviegen:high_res", "resolution", "short_side", 768, None),
        ("moviegen:high_res", "raw_duration", "film_duration_s", 4, 120),
        ("moviegen:high_res", "aspect", "aspect", 1, None),
        ("moviegen:high_res", "text", "text_score", None, 0.6),
        ("moviegen:high_res", "duration", "duration_s", 4, 16),
        ("moviegen:high_res", "vectors", "motion_vectors", 0.5, 7),
        ("moviegen:high_res", "jitter", "cuts_per_s", None, 0.85),
        ("moviegen:high_res+learned", "aesthetic", "aesthetic_laion", 4, None),
        ("cogvideox+learned", "aesthetic", "aesthetic_laion", 4.5, None),
        ("easyanimate:paper", "duration", "duration_s", 3, 10),
        ("easyanimate:paper", "text", "text_area", None, 0.01),
        ("easyanimate:code", "text", "text_area", None, 0.02),
        ("easyanimate:code", "motion", "motion_farneback", 2, 20),
        ("easyanimate:code+learned", "aesthetic", "aesthetic_laion", 4, None),
        ("easyanimate:code+learned", "consistency", "temporal_consistency_clip", 0.8, None),
    ],
)
def test_published_thresholds(name: str, rule_name: str, column: str, low: float | None, high: float | None) -> None:
    found = rule(find(name), rule_name)
    assert (found.column, found.low, found.high) == (column, low, high)


def test_vmaf_motion_over_two_is_said_at_the_size_at_which_it_is_measured() -> None:
    slow = rule(recipes.moviegen(), "slow")
    assert slow.column == "motion_vmaf" and slow.low == pytest.approx(2.0 * AT_180)


def test_movie_gen_counts_in_the_order_of_its_table() -> None:
    names = [r.name for r in recipes.moviegen("high_res").rules]
    table = ["raw_duration", "resolution", "aspect", "text", "border", "one_of_scene", "aesthetic", "slow", "jitter"]
    assert [n for n in names if n in table] == table


def test_movie_gen_stages_differ_in_what_they_mix() -> None:
    low, high, sft = (recipes.moviegen(stage) for stage in ("low_res", "high_res", "sft"))  # type: ignore[arg-type]
    assert [(q.name, q.low, q.high) for q in low.resample.quotas] == [("landscape", 0.6, 0.6)]
    assert not high.resample.quotas
    assert [(q.name, q.low) for q in sft.resample.quotas] == [("landscape", 0.8), ("people", 0.6)]
    assert sft.resample.exempt == "person_score"
    assert any(isinstance(s, MotionVectors) for s in high.signals)
    assert low.resample.keep == high.resample.keep == 0.82


def test_cogvideox_reads_all_six_tags() -> None:
    columns = {r.column for r in recipes.cogvideox().rules}
    assert {f"tag_{name}" for name in TAG_NAMES} <= columns
    (best,) = recipes.cogvideox().subsets
    assert best.share == 0.2 and best.by == "aesthetic_photo"


def test_easyanimate_splits_as_its_scripts_do() -> None:
    code = recipes.easyanimate("code")
    assert code.cuts.detector == "content" and code.pieces.trim_end == 0.5
    assert any(isinstance(s, RaftMotion) for s in recipes.easyanimate(learned=True).costly)
    (laion,) = (s for s in recipes.easyanimate(learned=True).costly if isinstance(s, LaionAesthetics))
    assert (laion.which, laion.count) == ("uniform", 4)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("nosuch", "choose from embedded, cogvideox, moviegen, stiv, easyanimate"),
        ("moviegen:huge", "choose from low_res, high_res, sft"),
        ("easyanimate:v9", "choose from paper, code"),
        ("stiv:x", "stiv has no variants"),
        ("embedded+learned", r"there is no \+learned form of embedded"),
        ("moviegen+fast", r"there is no \+fast form of moviegen"),
    ],
)
def test_wrong_names_are_one_sentence(reference: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        find(reference)
    assert str(caught.value).count("\n") == 0


@pytest.mark.parametrize("name", NAMES[1:])
def test_every_recipe_runs(
    name: str, demo: tuple[Path, dict[str, Truth]], client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On two small films, which most recipes find too small or too short: everything is measured all the same."""
    films = tmp_path / "films"
    films.mkdir()
    for film in ("studio", "rejects"):
        shutil.copy(demo[1][film].path, films)
    recipe = dataclasses.replace(find(name))
    result = run([str(films)], tmp_path / "out", recipe, client=client, measure_all=True)
    clips = result.clips.to_pandas()
    assert len(clips) > 4 and (tmp_path / "out" / "report.html").exists()
    for r in recipe.rules:
        if r.column and not may_be_null(result.clips.schema.field(r.column)):
            assert clips[r.column].notna().any(), f"{r.name}: nothing measured {r.column}"
    steps = funnel(result.clips, recipe)
    assert [s.name for s in steps] == [*(r.name for r in recipe.rules), "copy"]
    assert steps[-1].left == int(clips.kept.sum())


def test_weights_that_are_missing_leave_nulls_and_a_reason(
    demo: tuple[Path, dict[str, Truth]], client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIDCURATE_OFFLINE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    recipe = find("easyanimate+learned")
    clips = run([demo[1]["studio"].path], tmp_path / "out", recipe, client=client, measure_all=True).clips.to_pandas()
    assert clips.motion_raft.isna().all() and clips.aesthetic_laion.isna().all() and clips.text_area.notna().all()
    assert clips.measure_error.str.contains("RaftMotion failed").all()
    assert clips.measure_error.str.contains("LaionAesthetics failed").all()
    assert not clips.kept.any(), "what was not measured is not kept by a rule that needs it"
