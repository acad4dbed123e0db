"""DSG-Video's arithmetic, and where captions name things."""

from __future__ import annotations

import numpy as np
import pytest

from captioners.hallucination import Counts, count, difference, never_seen, summarise
from captioners.mentions import key, named_in, one_line, sentences, stem


def test_the_worked_example() -> None:
    """Three sentences; four objects looked for in two frames; two of them, both of sentence two, are in neither."""
    objects = ["person", "rice", "insect", "box"]
    seen = np.array([[1, 1], [0, 1], [0, 0], [0, 0]], bool)
    text = "A person prepares rice. An insect sits on a box. The person stirs the rice."
    mentions = np.array([[k in named_in(name, sentences(text)) for k in range(3)] for name in objects])
    counts = count(mentions, never_seen(seen))
    assert counts == Counts(4, 2, 3, 1)
    assert counts.i == pytest.approx(0.5) and counts.s == pytest.approx(1 / 3)


def test_nothing_named_is_not_measured() -> None:
    counts = count(np.zeros((0, 2), bool), never_seen(np.zeros((0, 8), bool)))
    assert counts == Counts(0, 0, 2, 0)
    assert counts.i is None and counts.s == 0.0
    assert count(np.zeros((1, 0), bool), np.ones(1, bool)).s is None


def test_the_corpus_is_micro_averaged() -> None:
    """Published totals: 1911 objects of which 5.3 % were hallucinated, in 100 captions."""
    rng = np.random.default_rng(3)
    named = rng.multinomial(1911, np.full(100, 0.01))
    bad = rng.multivariate_hypergeometric(named, 101)
    counts = np.stack([named, bad, np.full(100, 4), np.minimum(bad, 4)], axis=1)
    found = summarise(counts)
    assert found.captions == 100 and found.counts.named == 1911 and found.richness == pytest.approx(19.11)
    assert found.i.value == pytest.approx(101 / 1911) and round(100 * found.i.value, 1) == 5.3
    assert found.i.low is not None and found.i.high is not None and found.i.low < 101 / 1911 < found.i.high
    macro = float(np.mean(bad / np.maximum(named, 1)))
    assert found.i.value != pytest.approx(macro, abs=1e-5)


def test_the_bootstrap_is_that_of_captions_drawn_one_by_one() -> None:
    rng = np.random.default_rng(0)
    named = rng.integers(1, 12, 80)
    bad = rng.binomial(named, 0.2)
    counts = np.stack([named, bad, np.full(80, 3), np.minimum(bad, 3)], axis=1)
    found = summarise(counts, draws=4000)
    drawn = rng.integers(0, 80, (4000, 80))
    naive = np.quantile(bad[drawn].sum(axis=1) / named[drawn].sum(axis=1), (0.025, 0.975))
    assert (found.i.low, found.i.high) == pytest.approx(tuple(naive), abs=0.006)
    assert found == summarise(counts, draws=4000)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for k in range(200):
        named = rng.integers(5, 25, 100)
        bad = rng.binomial(named, 0.06)
        found = summarise(np.stack([named, bad, named, bad], axis=1), draws=300, seed=k).i
        assert found.low is not None and found.high is not None
        hits += found.low <= 0.06 <= found.high
    assert 180 <= hits <= 200


def test_the_same_clips_make_a_small_difference_plain() -> None:
    """Apart the intervals overlap; a pair for a pair they do not."""
    rng = np.random.default_rng(2)
    named = rng.integers(5, 30, 100)
    bad = rng.binomial(named, rng.uniform(0, 0.4, 100))
    a = np.stack([named, bad, named, bad], axis=1)
    b = np.stack([named, np.maximum(bad - 1, 0), named, np.maximum(bad - 1, 0)], axis=1)
    of_i, of_s = difference(a, b)
    assert of_i == of_s and of_i.value is not None and of_i.high is not None
    assert of_i.value == pytest.approx((b[:, 1].sum() - a[:, 1].sum()) / named.sum())
    first, second = summarise(a).i, summarise(b).i
    assert second.high is not None and first.low is not None and second.high > first.low
    assert of_i.high < 0


def test_no_captions_and_many() -> None:
    nothing = summarise(np.zeros((0, 4), np.int64))
    assert nothing.captions == 0 and nothing.i.value is None and nothing.richness == 0
    assert difference(np.zeros((0, 4), np.int64), np.zeros((0, 4), np.int64))[0].value is None
    rng = np.random.default_rng(0)
    named = rng.integers(0, 20, 300_000)
    bad = rng.binomial(named, 0.05)
    found = summarise(np.stack([named, bad, np.full_like(named, 4), np.minimum(bad, 4)], axis=1))
    assert found.i.low is not None and found.i.high is not None and found.i.high - found.i.low < 0.002


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A cat sits. It looks up! Why? Nobody knows…", ["A cat sits.", "It looks up!", "Why?", "Nobody knows…"]),
        (
            "Dr. Smith meets J. R. Brown at 4.5 km/h. He waves.",
            ["Dr. Smith meets J. R. Brown at 4.5 km/h.", "He waves."],
        ),
        ('She says "Stop." He stops.', ['She says "Stop.', "He stops."]),
        ("一只猫坐着。狗在跑！", ["一只猫坐着。", "狗在跑！"]),
        ("no stop at the end", ["no stop at the end"]),
        ("One.\n\n- Two\nThree", ["One.", "- Two", "Three"]),
        (" ... !! ", []),
        ("", []),
    ],
)
def test_sentences(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


@pytest.mark.parametrize(
    ("one", "many"),
    [
        ("box", "boxes"), ("house", "houses"), ("bus", "buses"), ("dress", "dresses"), ("city", "cities"),
        ("knife", "knives"), ("leaf", "leaves"), ("person", "people"), ("child", "children"), ("dish", "dishes"),
        ("lens", "lenses"), ("glass", "glasses"), ("tree", "trees"), ("mouse", "mice"), ("bee", "bees"),
        ("toy", "toys"), ("potato", "potatoes"), ("glove", "gloves"), ("key", "keys"), ("vegetable", "vegetables"),
    ],
)  # fmt: skip
def test_plurals_are_the_same_word(one: str, many: str) -> None:
    assert stem(one) == stem(many)


def test_other_words_stay_apart() -> None:
    words = "cat car cart dog dock box bow man map boat boot bus bush glass grass lens person dress star stair"
    assert len({stem(word) for word in words.split()}) == words.count(" ") + 1


def test_names_of_one_object() -> None:
    assert key("The red boxes") == key("a red box") == ("red", "box")
    assert key("the dog's tail") == ("dog", "tail")
    assert key("two") == ("two",)


def test_where_an_object_is_named() -> None:
    parts = sentences("A red ball lies on a table. Two blue balls roll. The table, made of wood, is old.")
    assert named_in("red ball", parts) == [0]
    assert named_in("blue balls", parts) == [1]
    assert named_in("ball", parts) == [0, 1]
    assert named_in("wood table", parts) == [2]  # not in a row anywhere
    assert named_in("insect", parts) == [] and named_in("all", parts) == [] and named_in("!", parts) == []
    assert named_in("猫", sentences("一只猫坐着。狗在跑！")) == [0]
    assert named_in("red table", ["A red ball lies on a table."]) == [0]
    assert named_in("red table", ["A red ball lies on a table."], loosely=False) == []


def test_control_characters_are_taken_out() -> None:
    assert one_line("a\x1b[31m b\x00\r\n\u202ec\ud800") == "a [31m b c"
    assert one_line("می‌خواهم 👩‍🚀") == "می‌خواهم 👩‍🚀"  # joiners are part of the writing
