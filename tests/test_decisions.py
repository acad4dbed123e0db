"""Rules, recipes and their settings, captions."""

from __future__ import annotations

import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from captioners.from_signals import FromSignals
from curation import recipes
from curation.recipe import Recipe, with_settings
from filters.rules import Rule, judge, passes

TABLE = pa.table({"a": [1.0, 2.0, None, 3.0], "b": ["x", "y", "x", None]})


def test_a_rule_passes_what_lies_within() -> None:
    assert passes(Rule("r", "a", low=2.0), TABLE).to_pylist() == [False, True, False, True]
    assert passes(Rule("r", "a", high=2.0), TABLE).to_pylist() == [True, True, False, False]
    assert passes(Rule("r", "a", low=1.5, high=2.5), TABLE).to_pylist() == [False, True, False, False]


def test_what_was_not_measured_is_not_kept() -> None:
    assert passes(Rule("r", where=pc.field("b") != "z"), TABLE).to_pylist() == [True, True, True, False]


def test_every_failed_rule_is_named() -> None:
    rules = (Rule("small", "a", low=2.0), Rule("letter", where=pc.field("b") == "x"))
    assert judge(rules, TABLE).to_pylist() == [["small"], ["letter"], ["small"], ["letter"]]


def test_rules_print_and_pickle() -> None:
    for rule, text in (
        (Rule("r", "a", low=2.0), "a >= 2"),
        (Rule("r", "a", high=0.05), "a <= 0.05"),
        (Rule("r", "a", low=1, high=2), "1 <= a <= 2"),
        (Rule("r", where=pc.field("a") > 1), "(a > 1)"),
    ):
        assert str(rule) == text
        assert passes(pickle.loads(pickle.dumps(rule)), TABLE) == passes(rule, TABLE)


def test_wrong_rules_are_one_sentence() -> None:
    with pytest.raises(ValueError, match="rule r: give a column"):
        Rule("r", "a")
    with pytest.raises(ValueError, match=r"rule r \(c >= 1\) cannot be applied"):
        passes(Rule("r", "c", low=1), TABLE)


# -- recipes ----------------------------------------------------------------------------------------------------------


def rule(recipe: Recipe, name: str) -> Rule:
    return next(r for r in recipe.rules if r.name == name)


def test_settings_reach_every_kind_of_value(recipe: Recipe) -> None:
    changed = with_settings(
        recipe,
        [
            "copies.mirror=true",
            "rules.text.high=0.02",
            "rules.shaky=off",
            "pieces.longest=8",
            "concepts.count=12",
            "resample.keep=0.5",
            "signals.Jitter.threshold=30",
            "costly.Text.engine.longest=960",
            "rules.exposure.low=none"
            if any(r.name == "exposure" for r in recipe.rules)
            else "rules.dark_or_burnt.high=none",
        ],
    )
    assert changed.copies.mirror is True and changed.pieces.longest == 8.0 and changed.concepts.count == 12
    assert rule(changed, "text").high == 0.02 and "shaky" not in [r.name for r in changed.rules]
    assert rule(changed, "dark_or_burnt").high is None
    assert recipe.copies.mirror is False, "the recipe itself is not touched"


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("copies.mirror", "write key=value"),
        ("copies.miror=true", "there is no 'miror'; choose from alike, share"),
        ("rules.txt.high=1", "there is no 'txt'; choose from min_duration"),
        ("copies.mirror=maybe", "give true or false"),
        ("pieces.longest=long", "that is not a number"),
        ("concepts.count=1.5", "give a whole number"),
        ("copies=1", "that is a group of settings"),
        ("rules.text=0.1", "say which number of it"),
        ("nothing=1", "there is no 'nothing'; choose from"),
        ("copies.mirror.x=1", "it has no settings"),
    ],
)
def test_wrong_settings_are_one_sentence(recipe: Recipe, setting: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        with_settings(recipe, [setting])
    assert "\n" not in str(caught.value)


def test_what_is_measured_names_the_stage_what_is_decided_does_not(recipe: Recipe) -> None:
    same = with_settings(recipe, ["rules.text.high=0.02", "copies.share=0.8", "resample.seed=3", "parts.videos=2"])
    assert (same.scan_stage, same.measure_stage) == (recipe.scan_stage, recipe.measure_stage)
    for setting in ("pieces.longest=8", "cuts.ratio=3", "signals.Jitter.threshold=30", "pack.cap=4"):
        other = with_settings(recipe, [setting])
        assert other.scan_stage != recipe.scan_stage and other.measure_stage != recipe.measure_stage
    late = with_settings(recipe, ["costly.Text.margin=0.2"])
    assert late.scan_stage == recipe.scan_stage and late.measure_stage != recipe.measure_stage


def test_every_rule_reads_a_column_that_the_recipe_measures(recipe: Recipe) -> None:
    from curation.recipe import columns_of
    from manifests.schema import IDENTITY, TAG_NAMES

    columns = (recipe.walk_schema, recipe.costly_schema, recipe.derived_schema)
    known = {*IDENTITY.names, *(name for schema in columns for name in schema.names)}
    for r in recipe.rules:
        assert columns_of(r) <= known and r.why
    assert [r.name for r in recipe.rules if r not in recipe.gate] == [
        "text",
        *(t for t in TAG_NAMES if t != "no_motion_connectivity"),
    ]


def test_recipes_are_found_by_name_and_in_files(tmp_path: Path) -> None:
    assert recipes.find("embedded") == recipes.embedded()
    mine = tmp_path / "mine.py"
    mine.write_text(
        "import dataclasses\nfrom curation import recipes\n"
        "def recipe():\n    return dataclasses.replace(recipes.embedded(), name='mine', rules=())\n"
        "def broken():\n    return 7\n"
    )
    assert recipes.find(str(mine)).name == "mine" == recipes.find(f"{mine}:recipe").name
    for reference, says in (
        ("nosuch", "there is no recipe 'nosuch'; choose from embedded"),
        (f"{tmp_path}/absent.py", "does not exist"),
        (f"{mine}:broken", "returned int"),
        (f"{mine}:absent", "does not load: AttributeError"),
    ):
        with pytest.raises(ValueError, match=says):
            recipes.find(reference)


# -- captions ---------------------------------------------------------------------------------------------------------

ROW = {
    "exposure": 0.45,
    "contrast": 0.7,
    "colorfulness": 60.0,
    "dominant_colors": ["blue", "grey"],
    "motion_flow": 120.0,
    "shake": 1.0,
    "text_area": 0.0,
    "camera_motion": "pan_left",
    "camera_motion_confidence": 0.9,
    "fps": 29.97,
}


def test_captions_say_what_was_measured() -> None:
    said = FromSignals()(ROW)
    assert said["caption"] == "Pan left. An evenly lit, colourful scene in blue and grey, with fast motion. FPS-30"
    assert said["caption_raw"] == "An evenly lit, colourful scene in blue and grey, with fast motion."
    assert said["caption_model"] == "from_signals" and said["caption_error"] is None


def test_an_unsure_camera_is_not_put_in_front() -> None:
    assert FromSignals()({**ROW, "camera_motion_confidence": 0.3})["caption_raw"].startswith("An evenly")  # type: ignore[union-attr]
    assert "Pan" not in FromSignals()({**ROW, "camera_motion_confidence": 0.3})["caption"]  # type: ignore[operator]


def test_what_is_not_measured_is_not_said() -> None:
    row = {**ROW, "text_area": None, "dominant_colors": None, "shake": None, "contrast": None, "colorfulness": None}
    assert FromSignals()(row)["caption"]
    assert set(FromSignals()({**ROW, "exposure": None})) == {"caption_error"}
