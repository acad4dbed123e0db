"""Comparisons with and without a rule or a choice: which clips, what is trained, what is concluded."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

pytest.importorskip("torch")
from curation.ablate import compare as comparing
from curation.ablate.choose import Amounts, choose, rule_names, write_part
from curation.ablate.compare import Plan, compare, prepare
from curation.ablate.page import write_page
from curation.ablate.published import PUBLISHED, Published
from curation.ablate.statistics import Interval, interval, student, uncovered
from generator import recipes
from generator.recipe import Recipe
from manifests.store import Store, read_clips
from tests.generator_films import FPS, draw_clip, one_thread, write_film  # noqa: F401  (used by being here)
from tests.test_generator_train import quiet, tiny

LONG = pc.field("end_us") > 0
EVIL = "<script>alert(1)</script>"


def make(folder: Path, failed: list[list[str]], seconds: float = 1.25, films: list[str] | None = None) -> Path:
    """A clip for each; those that pass are moving shapes, those that fail are noise. films: which each is of."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, frames, rng = [], [], np.random.default_rng(0)
    for number, rules in enumerate(failed):
        caption, drawn = draw_clip(number, seconds)
        if rules:
            caption, drawn = EVIL, [rng.integers(0, 255, (72, 96, 3), dtype=np.uint8) for _ in drawn]
        start = round(len(frames) / FPS * 1e6)
        frames += drawn
        row = {"clip_id": f"clip-{number:03d}", "uri": str(folder / "film.mp4"), "start_us": start, "fps": float(FPS)}
        row |= {"end_us": round(len(frames) / FPS * 1e6), "caption": caption, "failed_rules": rules, "kept": not rules}
        rows.append(row | {"sampled": not rules, "video_id": films[number] if films else f"video-{number}"})
    write_film(folder / "film.mp4", frames)
    kinds = {"clip_id": pa.string(), "video_id": pa.string(), "uri": pa.string(), "start_us": pa.int64()}
    kinds |= {"end_us": pa.int64(), "fps": pa.float64(), "caption": pa.string(), "sampled": pa.bool_()}
    kinds |= {"kept": pa.bool_()}
    schema = pa.schema(list((kinds | {"failed_rules": pa.list_(pa.string())}).items()))
    Store(folder).replace_table("clips.parquet", [pa.Table.from_pylist(rows, schema=schema)])
    return folder


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    failed: list[list[str]] = [[] for _ in range(15)]
    failed += [["noise"]] * 12 + [["noise", "loud"]] * 3
    return make(tmp_path_factory.mktemp("noisy") / "out", failed)


def small(steps: int, vae_steps: int = 4) -> Recipe:
    recipe = tiny()
    how = dataclasses.replace(recipe.stages[0].training, steps=steps, lr=3e-3, ema=0.9, checkpoint_every=steps)
    coding = recipe.vae_stages[0]
    coding = dataclasses.replace(
        coding, training=dataclasses.replace(coding.training, steps=vae_steps, checkpoint_every=vae_steps)
    )
    stages = (dataclasses.replace(recipe.stages[0], training=how),)
    return dataclasses.replace(recipe, vae_stages=(coding,), stages=stages)


def test_sides_have_as_many_clips_and_what_is_held_out_is_seen_by_none(manifest: Path) -> None:
    known = rule_names(str(manifest))
    assert known == ["loud", "noise"]
    choice = choose(str(manifest), ["noise"], known, Amounts(), LONG)
    assert len(choice.held) == 3 and len(choice.passing) == 12 and len(choice.rejected["noise"]) == 12
    assert not set(choice.held) & set(choice.passing)
    for seed in range(3):
        ids, count = choice.without("noise", None, seed)
        assert len(ids) == len(set(ids)) == 12 and count == 6, "half of what would be there, 12 of 24, is noise"
        assert len(set(ids) & set(choice.rejected["noise"])) == 6
        assert not set(ids) & set(choice.held)
    draws = {choice.without("noise", 0.5, seed)[0] for seed in range(3)}
    assert len(draws) == 3 and choice.without("noise", 0.5, 1) == choice.without("noise", 0.5, 1)
    assert choice.without("noise", 1.0, 0)[0] == choice.rejected["noise"]
    more = choose(str(manifest), [], known, Amounts(clips=5, held_out=2), LONG)
    assert set(more.held) < set(choice.held) and len(more.passing) == 5 and more.pool == 12


def table(of: list[tuple[str, list[str], str, str | None]], folder: Path) -> str:
    """A manifest of clips that nobody decodes: id, failed rules, film, group of copies."""
    rows = [
        {"clip_id": clip, "failed_rules": rules, "video_id": film, "copy_group": group, "uri": film, "end_us": 1}
        for clip, rules, film, group in of
    ]
    Store(folder).replace_table("clips.parquet", [pa.Table.from_pylist(rows)])
    return str(folder)


def test_films_are_held_out_whole(tmp_path: Path) -> None:
    clips = [(f"{film}-{k}", ["dark"] if k == 3 else [], film, None) for film in "abcdefghij" for k in range(4)]
    folder = table(clips, tmp_path / "even")
    choice = choose(folder, ["dark"], ["dark"], Amounts(), LONG)
    held = set(choice.films.values())
    assert len(held) == 2 and len(choice.held) == 6 and set(choice.films) == set(choice.held)
    trained_on = {clip[0] for clip in (*choice.passing, *choice.rejected["dark"])}
    assert not held & trained_on and len(choice.passing) == 24, "also those that the rule rejects"
    assert len(choice.rejected["dark"]) == 8
    assert choose(folder, ["dark"], ["dark"], Amounts(), LONG) == choice, "the same every time"
    film = sorted(held)[0]
    copies = [("z-0", ["copy"], "z", "twins"), ("z-1", ["copy"], "z", "others")]
    twins = [(c, r, f, "twins" if c == f"{film}-0" else g) for c, r, f, g in clips]
    both = choose(table([*twins, *copies], tmp_path / "copies"), ["copy"], ["copy"], Amounts(), LONG)
    assert set(both.films.values()) == held and both.rejected["copy"] == ("z-1",), "no copy of what is held out"
    large = [("long-" + str(k), [], "long", None) for k in range(30)] + clips[:12]
    assert "long" not in choose(table(large, tmp_path / "large"), [], [], Amounts(), LONG).films.values()
    with pytest.raises(ValueError, match="all clips that pass are of one film"):
        choose(table([(f"{k}", [], "one", None) for k in range(12)], tmp_path / "one"), [], [], Amounts(), LONG)


@pytest.mark.parametrize("published", [p for p in PUBLISHED if p.command.startswith("--")], ids=lambda p: p.command)
def test_the_choices_of_the_papers_are_one_command_each(manifest: Path, tmp_path: Path, published: Published) -> None:
    words = shlex.split(published.command)
    said = [(option, value) for option, value in zip(words[::2], words[1::2], strict=True)]
    name = next((value for option, value in said if option == "--recipe"), "tiny_cogvideox")
    plan = Plan(str(manifest), tmp_path, recipes.named(name), model=[v for option, v in said if option == "--model"])
    sides = prepare(plan)[1]
    assert sides and len(sides) == len(plan.model)
    for side in sides:
        assert side.recipe != plan.recipe and side.of_vaes == side.name.startswith("vae")


def test_a_rate_of_learning_is_a_choice_too(manifest: Path, tmp_path: Path) -> None:
    plan = Plan(str(manifest), tmp_path, recipes.named("tiny_cogvideox"), model=["stages.dit.training.lr=0.001"])
    assert prepare(plan)[1][0].recipe.stages[0].training.lr == 0.001


def test_what_cannot_be_compared_is_said_in_a_sentence(manifest: Path, tmp_path: Path) -> None:
    def plan(**changes: object) -> Plan:
        return dataclasses.replace(Plan(str(manifest), tmp_path / "out", small(4), ["noise"]), **changes)

    with pytest.raises(ValueError, match=r"--without nosuch: there is no such rule .* it has loud, noise"):
        prepare(plan(without=["nosuch"]))
    with pytest.raises(ValueError, match=r"--without loud: no clip .* is rejected by loud alone"):
        prepare(plan(without=["loud"]))
    with pytest.raises(ValueError, match=r"6 clips pass all rules .* at least 10"):
        prepare(plan(folder=str(make(tmp_path / "few", [[]] * 6 + [["noise"]]))))
    with pytest.raises(ValueError, match="0 clips pass all rules and are long enough"):
        data = dataclasses.replace(small(4).data, fps=0.1)
        prepare(plan(recipe=dataclasses.replace(small(4), data=data)))
    with pytest.raises(ValueError, match=r"take at most --share 0\.11,"):
        prepare(plan(folder=str(make(tmp_path / "one", [[]] * 11 + [["noise"]])), amounts=Amounts(share=0.5)))
    with pytest.raises(ValueError, match="--share must be above 0"):
        Amounts(share=0.0)
    for setting, says in {
        "system.nosuch=1": "--model system.nosuch: there is no 'nosuch'; choose from dit",
        "system.groups": "write key=value",
        "system.groups=8": "that is what recipe tiny has already",
        "system.groups=5": "must be a multiple of groups",
        "data.size=64": "data is the same on both sides",
        "vae.latent_channels=8 system.groups=1": "a side is about the VAE",
        "stages.dit.training.lr=fast": "that is not a number",
    }.items():
        with pytest.raises(ValueError, match=says):
            prepare(plan(without=[], model=[setting]))
    with pytest.raises(ValueError, match="name what to leave out"):
        plan(without=[])


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(3)
    for seeds, films, spread in ((3, 8, (0.5, 1.0)), (3, 6, (1.0, 0.3)), (2, 8, (0.5, 0.5)), (5, 10, (0.2, 1.0))):
        hits, trials = 0, 200
        for _ in range(trials):
            film = np.repeat(np.arange(films), rng.integers(1, 6, films))
            noise = rng.normal(0, spread[0], (seeds, 1)) + rng.normal(0, spread[1], films)[film]
            found = interval(0.3 + noise + rng.normal(0, 0.5, (seeds, len(film))), list(map(str, film)))
            hits += found.low <= 0.3 <= found.high
        assert 0.9 <= hits / trials <= 0.995, (seeds, films)
    apart = 1.0 * rng.normal(0, 1, 6)[np.repeat(np.arange(6), 5)] + np.zeros((3, 1))
    alone, together = interval(apart), interval(apart, [str(k) for k in np.repeat(np.arange(6), 5)])
    assert together.mean == pytest.approx(alone.mean) and together.high - together.low > 2 * (alone.high - alone.low)
    assert [student(0.975, freedom) for freedom in (1, 2, 10)] == pytest.approx([12.706, 4.3027, 2.2281], rel=1e-3)
    same = interval(np.zeros((3, 5)))
    assert (same.mean, same.low, same.high) == (0, 0, 0) and not same.beside_zero
    assert interval(np.full((2, 5), 0.1)).beside_zero
    assert [uncovered(*n) for n in ((2, 2), (1, 2), (1, 1))] == ["", "other seeds", "other seeds and other films"]


@pytest.fixture(scope="module")
def done(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> comparing.Report:
    out = tmp_path_factory.mktemp("ablate")
    plan = Plan(
        str(manifest),
        out,
        small(80, 60),
        ["noise"],
        ["system.groups=1", "vae_stages.vae.loss.kl=1"],
        Amounts(share=1.0),
        seeds=2,
    )
    return compare(plan, progress=quiet)


@pytest.mark.slow
def test_without_the_rule_against_noise_the_held_out_loss_is_higher(done: comparing.Report) -> None:
    rule, choice, vae = done.comparisons
    assert rule.measure == choice.measure == "held-out loss" and vae.measure == "PSNR"
    assert rule.trained.side.mixed_in == 12 and rule.share.mean > 0.5
    assert abs(choice.share.mean) < rule.share.mean, "how times are drawn matters less than noise for clips"
    said = json.loads((done.plan.out / "ablation.json").read_text())
    assert [c["verdict"] for c in said["comparisons"]] == [c.verdict for c in done.comparisons]
    assert said["comparisons"][0]["differences"]["held-out loss"]["low"] == rule.decisive.low
    of_rule = said["comparisons"][0]["trainings"]
    assert len(of_rule) == 4 and all((done.plan.out / place / "train.json").exists() for place in of_rule)


@pytest.mark.slow
def test_verdicts_follow_the_interval_and_the_sense_of_the_measure(done: comparing.Report) -> None:
    rule, choice, _ = done.comparisons

    def said(of: comparing.Comparison, low: float, high: float, better_high: bool = False) -> str:
        found = {of.measure: Interval((low + high) / 2, low, high)}
        return dataclasses.replace(of, differences=found, better_high=better_high).verdict

    assert [said(rule, *ends) for ends in ((0.1, 0.3), (-0.3, -0.1), (-0.1, 0.3))] == [
        "the rule helps",
        "the rule hurts",
        "no difference seen",
    ]
    assert (said(choice, 0.1, 0.3), said(choice, -0.3, -0.1)) == ("worse", "better")
    assert dataclasses.replace(choice, uncovered="other seeds").verdict == "cannot tell: other seeds may differ"
    assert (said(choice, 0.1, 0.3, True), said(choice, -0.3, -0.1, True)) == ("better", "worse")


@pytest.mark.slow
def test_sides_share_the_vae_and_differ_in_clips_alone(done: comparing.Report) -> None:
    rule, choice, vae = done.comparisons
    folders = [*rule.trained.folders, *rule.base.folders, *choice.trained.folders]
    records = [json.loads((folder / "train.json").read_text()) for folder in folders]
    assert len({record["fingerprints"]["vae"] for record in records}) == 1
    assert {record["clips"] for record in records} == {12}
    assert len({record["clips_fingerprint"] for record in records[:4]}) == 2, "all of the noise; all of the shapes"
    fingerprints = [json.loads((f / "train.json").read_text())["fingerprints"] for f in vae.trained.folders]
    assert len({each["vae"] for each in fingerprints}) == 2 and all(set(each) == {"vae"} for each in fingerprints)


@pytest.mark.slow
def test_a_second_call_trains_nothing_and_finds_the_same(done: comparing.Report) -> None:
    before = (done.plan.out / "ablation.json").read_text()
    heard: list[str] = []
    again = compare(done.plan, progress=lambda phase, *_: heard.append(phase))
    assert not {"vae", "dit"} & set(heard) and (done.plan.out / "ablation.json").read_text() == before
    assert [c.decisive for c in again.comparisons] == [c.decisive for c in done.comparisons]


@pytest.mark.slow
def test_the_page_shows_sides_intervals_and_the_papers(done: comparing.Report) -> None:
    html = write_page(done).read_text()
    assert "without noise" in html and "system.groups=1" in html and done.comparisons[0].verdict in html
    assert "+16.53" in html and "2410.13720" in html, "theirs stand beside"
    assert html.count("<polyline") >= 3 and "<script" not in html


def test_a_part_of_a_manifest_is_all_sampled(manifest: Path, tmp_path: Path) -> None:
    part = write_part(str(manifest), ["clip-020", "clip-001"], str(tmp_path / "part"))
    table = read_clips(part)
    assert table["clip_id"].to_pylist() == ["clip-001", "clip-020"] and table["sampled"].to_pylist() == [True, True]
