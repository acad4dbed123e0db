"""Boundaries: on synthetic films nothing is missed and nothing invented."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from filters.shots.cuts import LOOK, Cuts
from filters.shots.thumbs import Thumbs
from manifests.films.film import Film, Then, Truth, render
from manifests.films.photos import photo
from manifests.films.shots import MOVES, Shot, frames
from manifests.media.container import decode, open_film
from manifests.media.pixels import Picture
from manifests.types import Boundary, Image
from tests.conftest import read_lines
from tests.edits import WIPES, joined, passer_by, whipped

FPS = 24.0


def boundaries(path: str | Path) -> list[Boundary]:
    with open_film(str(path)) as film:
        splitter = Cuts().start(film.fps)
        found: list[Boundary] = []
        for decoded in decode(film):
            found += splitter.push(decoded.index, Picture(decoded.frame, film.rotation, film.sar).sample(LOOK))
            assert all(b.next_shot <= decoded.index + 1 for b in found)
        return found + splitter.flush()


def scores(found: Sequence[int], truth: Sequence[int], slack: int = 1) -> tuple[int, int, int]:
    """True positives, false positives, false negatives."""
    hit = sum(any(abs(f - t) <= slack for f in found) for t in truth)
    wrong = sum(not any(abs(f - t) <= slack for t in truth) for f in found)
    return hit, wrong, len(truth) - hit


def hard(found: Sequence[Boundary]) -> list[int]:
    return [b.start for b in found if b.kind == "cut"]


def random_films() -> list[Film]:
    """Films of random shots joined by hard cuts and fades, at several rates and shapes. No two neighbours share a
    photo, and only one photo is a plain grey texture: from one of these to another even an eye can miss the cut."""
    rng = np.random.default_rng(7)
    names = ["temple", "dahlia", "cat", "coffee", "rocket", "astronaut", "motorcycle", "grass", "galaxies"]
    moves = ["static", "pan_left", "pan_right", "tilt_up", "zoom_in", "zoom_out", "roll_cw", "shake"]
    films = []
    for number, (fps, size) in enumerate([(24, (320, 180)), (30, (180, 320)), (60, (320, 240)), (12, (320, 180))]):
        shots = []
        for _ in range(8):
            name = str(rng.choice([n for n in names if not shots or n != shots[-1].backdrop]))
            move = str(rng.choice(moves))
            speed = 0.012 if move == "shake" else float(rng.uniform(0.05, 0.35))
            shots.append(
                Shot(name, float(rng.uniform(0.8, 2.4)), move, speed, actors=int(rng.integers(0, 3)), seed=number)
            )
        then = tuple(Then("fade", 0.7) if rng.random() < 0.2 else Then() for _ in shots[1:])
        films.append(Film(f"random{number}", tuple(shots), then, *size, fps=fps, fade_in=0.5 if number % 2 else 0.0))
    return films


def test_hard_cuts_of_synthetic_films_are_found_exactly(demo: tuple[Path, dict[str, Truth]], tmp_path: Path) -> None:
    truths = [*demo[1].values(), *(render(film, tmp_path) for film in random_films())]
    total = np.zeros(3, int)
    for truth in truths:
        cuts = [e.start for e in truth.events if e.kind == "cut"]
        found = hard(boundaries(truth.path))
        counted = scores(found, cuts, slack=0)
        assert counted[1:] == (0, 0), (truth.path, found, cuts)
        total += counted
    assert total[0] >= 40


def test_fades_are_found_where_they_are(demo: tuple[Path, dict[str, Truth]], tmp_path: Path) -> None:
    truths = [*demo[1].values(), *(render(film, tmp_path) for film in random_films())]
    count = 0
    for truth in truths:
        found = [b for b in boundaries(truth.path) if b.kind == "fade"]
        wanted = [e for e in truth.events if e.kind == "fade"]
        assert len(found) == len(wanted), truth.path
        for fade, event in zip(found, wanted, strict=True):
            assert abs(fade.start - event.start) <= 2 and abs(fade.end - event.end) <= 2, (truth.path, fade, event)
        count += len(wanted)
    assert count > 8


def overlap(found: Boundary, start: int, end: int) -> float:
    """Intersection over union of two intervals of frames."""
    common = min(found.end, end) - max(found.start, start) + 1
    return max(0, common) / (max(found.end, end) - min(found.start, start) + 1)


@pytest.mark.parametrize("seconds", [0.4, 0.8, 1.5])
def test_dissolves_are_located(seconds: float, tmp_path: Path) -> None:
    looks = [("cat", "pan_left"), ("coffee", "static"), ("temple", "zoom_in"), ("dahlia", "tilt_up")]
    shots = tuple(Shot(name, 4.0, move, 0.06, actors=k % 2, seed=k) for k, (name, move) in enumerate(looks))
    truth = render(Film("d", shots, (Then("dissolve", seconds),) * 3), tmp_path)
    found = boundaries(truth.path)
    assert [b.kind for b in found] == ["dissolve"] * 3
    for boundary, event in zip(found, truth.events, strict=True):
        assert overlap(boundary, event.start, event.end) >= 0.8


def moving(name: str, seconds: float, move: str = "pan_left", speed: float = 0.04, seed: int = 1) -> list[Image]:
    return list(frames(Shot(name, seconds, move, speed, grain=1.0, seed=seed), 160, 90, FPS))


def split(pictures: Sequence[Image]) -> list[Boundary]:
    """Pictures that are the splitter's size as they are."""
    splitter = Cuts().start(FPS)
    found = [b for index, image in enumerate(pictures) for b in splitter.push(index, np.ascontiguousarray(image))]
    return found + splitter.flush()


@pytest.mark.parametrize("length", [9, 20, 34])
@pytest.mark.parametrize("kind", ["dissolve", *WIPES, "push left", "push up"])
def test_transitions_of_all_kinds_are_located(kind: str, length: int) -> None:
    pairs = [("cat", "coffee"), ("temple", "dahlia"), ("motorcycle", "cat")]
    for k, (one, other) in enumerate(pairs):
        before, after = moving(one, 4.0, seed=k), moving(other, 4.0, "zoom_in", seed=k)
        pictures, start, end = joined(before, after, kind, length)
        (found,) = split(pictures)
        assert found.kind in ({"dissolve", "gradual"} if kind == "dissolve" else {"wipe", "gradual"})
        assert overlap(found, start, end) >= 0.5, (one, other, found)


@pytest.mark.parametrize("bars", [(12, 0), (0, 20)])
def test_black_bars_hide_no_transition(bars: tuple[int, int]) -> None:
    for kind in ("dissolve", "left", "down"):
        pictures, start, end = joined(moving("cat", 4.0), moving("temple", 4.0, "zoom_in"), kind, 20)
        barred = []
        for picture in pictures:
            barred.append(np.zeros_like(picture))
            barred[-1][bars[0] : 90 - bars[0], bars[1] : 160 - bars[1]] = picture[
                bars[0] : 90 - bars[0], bars[1] : 160 - bars[1]
            ]
        (found,) = split(barred)
        assert overlap(found, start, end) >= 0.5


def test_thumbs_leave_bars_out_until_something_shows_there() -> None:
    thumbs = Thumbs()
    barred = np.zeros((90, 160, 3), np.uint8)
    barred[:, 20:140] = 200
    flash, wide = np.full_like(barred, 250), np.full_like(barred, 100)
    dark = np.zeros_like(barred)
    assert thumbs.push(dark).max() == 0
    seen = [thumbs.push(picture) for picture in [barred] * 20 + [flash] * 3 + [barred] * 20]
    assert seen[0].min() == 0 and seen[19].min() == 200 and seen[-1].min() == 200 and 0 < thumbs.since <= 20
    for _ in range(20):
        seen.append(thumbs.push(wide))
    assert thumbs.since > 43 and thumbs.push(barred).min() < 20
    assert seen[0].shape == seen[-1].shape == (9, 16, 3) and Thumbs().push(barred[:, :50]).shape == (16, 9, 3)


def test_a_passer_by_is_no_transition() -> None:
    pictures = moving("cat", 6.0, "static")
    body = moving("dahlia", 0.1)[0]
    body = np.concatenate([body, body], 1)
    for share in (0.4, 0.8, 1.2):
        assert split(passer_by(pictures, body, 60, 24, share)) == [], share


@pytest.mark.parametrize("seconds", [0.5, 0.8, 1.2])
def test_a_whip_pan_is_no_transition(seconds: float) -> None:
    still = np.asarray(cv2.resize(photo("temple"), (420, 280), interpolation=cv2.INTER_AREA), np.uint8)[80:]
    moving_for = round(seconds * FPS)
    for reach in (60, 100, 140):
        ease = (1 - np.cos(np.linspace(0, np.pi, moving_for))) / 2 * reach
        positions = [*[0.0] * 50, *ease, *[float(reach)] * 50]
        assert split(whipped(still, 160, 90, positions)) == [], reach


def test_a_title_and_a_change_of_light_are_no_transitions() -> None:
    pictures = moving("temple", 5.0)
    titled = [p.copy() for p in pictures]
    for k, picture in enumerate(titled):
        share = float(np.clip((k - 40) / 20, 0, 1))
        picture[30:55, 30:130] = np.asarray(picture[30:55, 30:130] * (1 - share) + 250 * share, np.uint8)
    assert split(titled) == []
    dimmed = [np.asarray(p * np.clip(1.2 - k / 100, 0.4, 1), np.uint8) for k, p in enumerate(pictures)]
    assert split(dimmed) == []


def test_a_small_shake_is_no_cut() -> None:
    """Single jolts of a pixel or two raise the content score of fine texture like a cut would."""
    still = np.asarray(cv2.resize(photo("gravel"), (200, 200), interpolation=cv2.INTER_AREA), np.uint8)
    rng = np.random.default_rng(3)
    at = np.cumsum(rng.integers(-1, 2, (120, 2)) * (rng.random((120, 1)) < 0.15), axis=0) + 40
    assert split([still[y : y + 90, x : x + 160] for x, y in np.clip(at, 0, 40)]) == []


@pytest.mark.parametrize("move", MOVES)
def test_motion_is_no_transition(move: str, tmp_path: Path) -> None:
    shots = (Shot("temple", 4.0, move, 0.03 if move == "shake" else 0.3, actors=2, seed=4),)
    assert one(Film("m", shots), tmp_path) == []


def one(film: Film, folder: Path) -> list[Boundary]:
    return boundaries(render(film, folder).path)


def test_flashes_are_no_cuts(tmp_path: Path) -> None:
    shot = Shot("temple", 4.0, "pan_right", 0.1, actors=1)
    assert one(Film("f", (shot,), flashes=(20, 40, 41, 60, 61, 62)), tmp_path) == []


def test_a_dip_to_white_is_a_fade(tmp_path: Path) -> None:
    film = Film("w", (Shot("cat", 2.0), Shot("coffee", 2.0)), (Then("white", 0.8),))
    (fade,) = one(film, tmp_path)
    assert fade.kind == "fade" and abs(fade.start - 38) <= 2 and abs(fade.end - 57) <= 2


def test_a_night_sky_is_not_black(tmp_path: Path) -> None:
    film = Film("n", (Shot("cat", 2.0), Shot("galaxies", 2.0, gain=0.7), Shot("coffee", 2.0)))
    assert [(b.kind, b.start) for b in one(film, tmp_path)] == [("cut", 48), ("cut", 96)]


def test_black_between_hard_cuts_belongs_to_no_shot(tmp_path: Path) -> None:
    black = Shot("cat", 0.5, gain=0.0)
    film = Film("b", (Shot("cat", 2.0), black, Shot("coffee", 2.0)))
    assert [(b.kind, b.start, b.end) for b in one(film, tmp_path)] == [
        ("cut", 48, 48),
        ("fade", 48, 59),
        ("cut", 60, 60),
    ]


def test_long_black_is_a_shot_of_its_own(tmp_path: Path) -> None:
    film = Film("l", (Shot("cat", 2.0), Shot("cat", 5.0, gain=0.0), Shot("coffee", 2.0)))
    assert [(b.kind, b.start) for b in one(film, tmp_path)] == [("cut", 48), ("cut", 168)]


def test_a_film_that_is_all_black_has_no_boundary(tmp_path: Path) -> None:
    assert one(Film("k", (Shot("cat", 1.0, gain=0.0),)), tmp_path) == []
    assert one(Film("m", (Shot("cat", 6.0, gain=0.0),)), tmp_path) == []


def test_what_is_settled_stays_settled(demo: tuple[Path, dict[str, Truth]]) -> None:
    for truth in demo[1].values():
        with open_film(truth.path) as film:
            splitter, settled = Cuts().start(film.fps), 0
            for decoded in decode(film):
                picture = Picture(decoded.frame, film.rotation, film.sar).sample(LOOK)
                for boundary in splitter.push(decoded.index, picture):
                    assert boundary.start >= settled or boundary.next_shot >= settled
                assert splitter.settled >= settled
                settled = splitter.settled


@pytest.mark.footage
def test_cuts_of_real_footage(footage: Path) -> None:
    total = np.zeros(3, int)
    truth = footage / "public_truth"
    for row in read_lines(truth / "cuts.jsonl"):
        cuts = [e["frame"] for e in row["events"] if e["type"] == "cut"]
        gradual = [(e["start"], e["end"]) for e in row["events"] if e["type"] != "cut"]
        found = [f for f in hard(boundaries(truth / row["file"])) if not any(a - 1 <= f <= b + 1 for a, b in gradual)]
        total += scores(found, cuts)
    for row in read_lines(truth / "real_cuts.jsonl"):
        if row["complete"]:
            total += scores(hard(boundaries(truth / row["file"])), row["hard_cuts"])
    f1 = 2 * total[0] / (2 * total[0] + total[1] + total[2])
    print(f"\nreal hard cuts: {total[0]} found, {total[1]} false, {total[2]} missed, F1 {f1:.3f}")
    assert f1 >= 0.97


@pytest.mark.footage
def test_fades_of_real_footage(footage: Path) -> None:
    truth = footage / "public_truth"
    for row in read_lines(truth / "cuts.jsonl"):
        found = [b for b in boundaries(truth / row["file"]) if b.kind == "fade"]
        wanted = [e for e in row["events"] if e["type"].startswith(("fade", "dip"))]
        assert len(found) == len(wanted)
        for fade, event in zip(found, wanted, strict=True):
            assert abs(fade.start - event["start"]) <= 2 and abs(fade.end - event["end"]) <= 2, (
                row["file"],
                fade,
                event,
            )


@pytest.mark.footage
def test_transitions_of_real_footage(footage: Path) -> None:
    truth, located, wanted = footage / "public_truth", 0, 0
    for row in read_lines(truth / "cuts.jsonl"):
        found = [b for b in boundaries(truth / row["file"]) if b.kind != "cut"]
        events = [e for e in row["events"] if e["type"] != "cut"]
        located += sum(any(overlap(b, e["start"], e["end"]) >= 0.5 for b in found) for e in events)
        wanted += len(events)
    print(f"\nreal transitions: {located} of {wanted} located")
    assert located >= 0.85 * wanted


@pytest.mark.parametrize("seed", range(40))
def test_boundaries_never_overlap_whatever_the_levels_do(seed: int) -> None:
    """Random stretches of black, white, ramps and noise, at rates from 1 to 60 frames a second."""
    rng = np.random.default_rng(seed)
    levels: list[float] = []
    while len(levels) < 120:
        count = int(rng.integers(1, 15))
        flat = float(rng.choice([0, 255, rng.integers(0, 256)]))
        ramp = np.linspace(*rng.permutation([flat, float(rng.integers(0, 256))]), count)
        levels += list(ramp) if rng.random() < 0.4 else [flat] * count
    levels = levels[: int(rng.integers(1, 120))]
    splitter, done = Cuts().start(float(rng.choice([1, 2, 10, 25, 60]))), 0
    for index, level in enumerate([*levels, None]):
        if level is None:
            found = splitter.flush()
        else:
            noise = rng.normal(level, rng.choice([0, 0, 20]), (90, 160, 3))
            found = splitter.push(index, np.clip(noise, 0, 255).astype(np.uint8))
        for boundary in found:
            assert done <= boundary.start <= boundary.end < len(levels)
            done = boundary.next_shot
