"""Copies: films that were cropped, bordered, trimmed, sped up and drawn over, and shots that only look alike."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from dedup import copies
from dedup.agreement import Look, compare
from dedup.candidates import FLAT, Hashed, Wholes, stretches
from dedup.copies import Copies, Group, Track, copy_pairs, groups, similar
from dedup.fingerprint import inside, probes, shrink, wholes
from dedup.placing import common, inverse, refine
from dedup.timing import best_line, path
from dedup.windows import grid, hashes, mirror, mirrored, signatures, spectra, unit
from manifests.films import shots
from manifests.films.shots import Shot
from manifests.types import Image

FPS = 10
SIZE = (320, 180)
LIVELY = Shot("temple", 5.0, "pan_right", 0.15, actors=2, seed=1)
SCENE = Shot("coffee", 6.0, actors=3, seed=3)

Film = list[Image]


@functools.cache
def film(shot: Shot, fps: int = 24) -> tuple[Image, ...]:
    return tuple(np.asarray(cv2.cvtColor(p, cv2.COLOR_BGR2GRAY), np.uint8) for p in shots.frames(shot, *SIZE, fps))


def sampled(pictures: Film, fps: float = 24, speed: float = 1.0, start: float = 0.0) -> tuple[Film, npt.NDArray]:
    """Ten pictures a second of a film that runs at so many a second."""
    seconds = np.arange(start, len(pictures) / fps, speed / FPS)
    return [pictures[int(t * fps)] for t in seconds], (seconds - start) / speed


def track(name: str, pictures: Film, times: npt.NDArray | None = None, shot: str | None = None) -> Track:
    times = np.arange(len(pictures)) / FPS if times is None else times
    return Track(name, shot or name, Look(shrink(pictures), times))


def crop(left: float, right: float, top: float, bottom: float) -> Callable[[Image], Image]:
    def cut(image: Image) -> Image:
        h, w = image.shape
        return image[round(top * h) : round(bottom * h), round(left * w) : round(right * w)]

    return cut


def scaled(share: float) -> Callable[[Image], Image]:
    return lambda image: np.asarray(cv2.resize(image, None, fx=share, fy=share, interpolation=cv2.INTER_AREA), np.uint8)


def bordered(down: int, across: int, level: int = 0) -> Callable[[Image], Image]:
    return lambda image: np.pad(image, ((down, down), (across, across)), constant_values=level)


def lettered(text: str, height: float) -> Callable[[Image], Image]:
    def write(image: Image) -> Image:
        at = (image.shape[1] // 5, round(height * image.shape[0]))
        return np.asarray(cv2.putText(image.copy(), text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.8, (255,), 3), np.uint8)

    return write


def coded(quality: int) -> Callable[[Image], Image]:
    def code(image: Image) -> Image:
        packed = cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, quality))[1]
        return np.asarray(cv2.imdecode(packed, cv2.IMREAD_GRAYSCALE), np.uint8)

    return code


TRANSFORMS: dict[str, Callable[[Image], Image]] = {
    "coded badly": coded(8),
    "a quarter of the size": scaled(0.25),
    "twice the size": scaled(2.0),
    "cropped by a tenth": crop(0.0, 0.9, 0.05, 0.95),
    "cropped by a quarter": crop(0.2, 0.95, 0.05, 0.8),
    "upright": crop(0.342, 0.658, 0.0, 1.0),
    "brighter": lambda image: np.asarray(np.clip(image * 1.2 + 20, 0, 255), np.uint8),
    "darker": lambda image: np.asarray(image * 0.6, np.uint8),
    "gamma": lambda image: np.asarray(255 * (image / 255) ** 1.6, np.uint8),
    "watermark": lettered("(c) all mine", 0.95),
    "subtitle": lettered("to be or not", 0.8),
    "letterbox": bordered(30, 0),
    "pillarbox, grey": bordered(0, 60, 128),
    "frame all around": bordered(20, 40),
}


@pytest.mark.parametrize("shot", [LIVELY, SCENE], ids=["camera moves", "camera stands"])
@pytest.mark.parametrize("how", TRANSFORMS)
def test_copies_are_found(shot: Shot, how: str) -> None:
    whole = list(film(shot))
    mine, times = sampled(whole)
    other, others = sampled([TRANSFORMS[how](p) for p in whole], start=0.06)
    assert len(copy_pairs([track("a", mine, times), track("b", other, others)], Copies())) == 1


@pytest.mark.parametrize("shot", [LIVELY, SCENE], ids=["camera moves", "camera stands"])
@pytest.mark.parametrize("speed", [0.5, 0.8, 1.05, 1.5, 2.0])
def test_copies_at_another_speed(shot: Shot, speed: float) -> None:
    mine, times = sampled(list(film(shot)))
    other, others = sampled(list(film(shot)), speed=speed)
    found = compare(Look(shrink(mine), times), Look(shrink(other), others))
    assert found and similar(Look(shrink(mine), times), Look(shrink(other), others), Copies())
    assert found.line.speed == pytest.approx(max(speed, 1 / speed), rel=0.06), "of the longer one's time to the other's"


def test_trimmed_copies_and_what_was_put_in() -> None:
    whole = list(film(LIVELY))
    mine, times = sampled(whole)
    for other in (whole[40:], whole[:70], [*whole[:60], *[np.zeros_like(whole[0])] * 12, *whole[60:]]):
        seen, others = sampled(other)
        assert copy_pairs([track("a", mine, times), track("b", seen, others)], Copies())


def test_mirrored_copies_count_when_asked() -> None:
    mine, times = sampled(list(film(LIVELY)))
    both = [track("a", mine, times), track("b", [mirror(crop(0.1, 1, 0, 0.9)(p)) for p in mine], times)]
    assert not copy_pairs(both, Copies())
    assert copy_pairs(both, Copies(mirror=True))


OTHERS = (
    Shot("temple", 5.0, "pan_left", 0.3, actors=2, seed=9),
    Shot("cat", 5.0, "pan_right", 0.15, actors=2, seed=1),
    Shot("dahlia", 5.0, actors=1),
    Shot("page", 5.0, actors=1),
    Shot("coffee", 5.0, "zoom_in", 0.1),
)


def test_other_footage_is_no_copy() -> None:
    clips = [track(f"{k}", *sampled(list(film(shot)))) for k, shot in enumerate((LIVELY, SCENE, *OTHERS))]
    assert not copy_pairs(clips, Copies(mirror=True))


@pytest.mark.parametrize("seconds", [2.0, 4.0, 6.0])
def test_other_shots_of_the_same_scene_are_no_copies(seconds: float) -> None:
    """The camera stands still; only what crosses the picture is another each time."""
    stage = film(Shot("coffee", 0.2, seed=3))[0]
    takes = []
    for seed in range(4, 9):
        rng = np.random.default_rng(seed)
        body = cv2.resize(rng.integers(0, 255, (5, 2), np.uint8), (40, 110), interpolation=cv2.INTER_NEAREST)
        begin, pace = rng.uniform(0, 0.3), rng.uniform(0.7, 1.3)
        pictures = []
        for at in np.linspace(0, 1, round(seconds * FPS)):
            seen, left = stage.copy(), int(280 * np.clip((at - begin) * pace, 0, 1))
            seen[60:170, left : left + 40] = body
            pictures.append(np.clip(seen + rng.normal(0, 2, seen.shape), 0, 255).astype(np.uint8))
        takes.append(track(f"{seed}", pictures))
    assert not copy_pairs(takes, Copies())
    assert len(Wholes(Hashed.gather(known(takes))).near(asked(takes))) > 5, "they were worth comparing"


def test_still_clips_are_compared_closely() -> None:
    titles = [lettered(words, 0.5)(np.zeros((180, 320), np.uint8)) for words in ("THE END", "PART ONE")]
    one, other = ([title] * 20 for title in titles)
    assert copy_pairs([track("a", one), track("b", [coded(60)(p) for p in one])], Copies())
    assert not copy_pairs([track("a", one), track("b", other)], Copies())


def known(tracks: list[Track]) -> list[Hashed]:
    return [Hashed.of(k, wholes(np.asarray(t.look.pictures, np.uint8))) for k, t in enumerate(tracks)]


def asked(tracks: list[Track]) -> Hashed:
    return Hashed.gather(Hashed.of(k, probes(np.asarray(t.look.pictures, np.uint8))) for k, t in enumerate(tracks))


# -- groups ------------------------------------------------------------------------------------------------------------

PIXELS = {"b-small": 500, "c-large": 2000}


def grouped(tracks: list[Track], settings: Copies = Copies()) -> list[Group]:
    return groups(copy_pairs(tracks, settings), {t.id: (PIXELS.get(t.id, 1000),) for t in tracks})


def test_groups_do_not_depend_on_order_and_keep_the_best() -> None:
    whole = list(film(LIVELY))
    mine, times = sampled(whole)
    trimmed, later = sampled(whole[15:])
    family = [
        track("b-small", [scaled(0.5)(p) for p in mine], times),
        track("c-large", mine, times),
        track("a-trim", trimmed, later),
    ]
    others = [track("z", *sampled(list(film(OTHERS[1])))), track("y", *sampled(list(film(SCENE))))]
    expected = grouped(family + others)
    assert [g.members for g in expected] == [("a-trim", "b-small", "c-large")]
    assert expected[0].keeper == "c-large"
    assert all(Copies().share <= s <= 1 for s in expected[0].similarity.values())
    for seed in range(4):
        shuffled = family + others
        random.Random(seed).shuffle(shuffled)
        assert grouped(shuffled) == expected


@pytest.mark.parametrize("count", [0, 1, 9])
def test_identical_clips_are_one_group_and_a_clip_alone_is_none(count: int) -> None:
    pictures, times = sampled(list(film(SCENE)))
    found = grouped([track(f"{k}", pictures, times) for k in range(count)])
    assert [len(group.members) for group in found] == ([9] if count == 9 else [])
    assert all(similarity == 1 for group in found for similarity in group.similarity.values())


def test_very_many_identical_clips_are_not_compared_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []
    monkeypatch.setattr(copies, "compare", lambda *looks: compared.append(1))
    pictures, times = sampled(list(film(SCENE)))
    (group,) = grouped([track(f"{k:03d}", pictures, times) for k in range(100)])
    assert len(group.members) == 100 and not compared


def test_pieces_of_one_shot_are_no_copies() -> None:
    mine, times = sampled(list(film(LIVELY)))
    a, b = track("a", mine, times), track("b", mine, times)
    assert grouped([a, b]) and not grouped([a, track("b", mine, times, shot="a")])


def test_clips_with_nothing_to_see_take_no_part() -> None:
    plain = [np.full((90, 160), 99, np.uint8)] * 12
    assert grouped([track("n", plain), track("m", plain), track("a", *sampled(list(film(LIVELY))))]) == []
    assert grouped([]) == []


def test_a_clip_of_one_picture_is_compared_too() -> None:
    mine, times = sampled(list(film(LIVELY)))
    assert grouped([track("a", mine, times), track("b", mine[20:21])])
    assert not grouped([track("a", mine, times), track("b", [film(SCENE)[0]])])


# -- parts -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("border", [(0, 0), (22, 0), (0, 41), (13, 27)])
def test_plain_borders_are_left_out(border: tuple[int, int]) -> None:
    down, across = border
    pictures = [np.pad(p, ((down, down), (across, across)), constant_values=16) for p in film(LIVELY)[::10]]
    rng = np.random.default_rng(0)
    noisy = [np.asarray(np.clip(p + rng.integers(-4, 5, p.shape), 0, 255), np.uint8) for p in pictures]
    left, top, right, bottom = inside(noisy)
    assert (left, top) == (across, down) and (right, bottom) == (across + SIZE[0], down + SIZE[1])


def test_spectra_of_a_window_are_those_of_the_cropped_picture() -> None:
    picture = np.asarray(cv2.resize(film(LIVELY)[0], (512, 512)), np.float32)
    small = cv2.resize(picture, (32, 32), interpolation=cv2.INTER_AREA)
    cut = cv2.resize(picture[96:480, 64:448], (32, 32), interpolation=cv2.INTER_AREA)
    window = np.array([[64 / 512, 448 / 512, 96 / 512, 480 / 512]])
    a, b = (spectra(np.asarray(p, np.float32)[None], w)[0, 0] for p, w in ((small, window), (cut, grid()[:1])))
    assert np.abs(a[:5, :5] - b[:5, :5]).max() < 1.0 and np.abs(a[:5, :5]).max() > 20


def test_hashes_survive_coding_and_tell_pictures_apart() -> None:
    pictures = [film(shot)[0] for shot in (LIVELY, SCENE, *OTHERS)]
    small, worse = (shrink([one]) for one in (pictures[0], coded(15)(pictures[0])))
    one, same = (hashes(signatures(p, grid()[:1])[0])[0, 0] for p in (small, worse))
    assert np.bitwise_count(one ^ same).sum() <= 12
    for other in pictures[1:]:
        assert np.bitwise_count(one ^ hashes(signatures(shrink([other]), grid()[:1])[0])[0, 0]).sum() > 32
    back = hashes(signatures(mirror(small), grid()[:1])[0])[0, 0]
    assert np.bitwise_count(mirrored(one[None])[0] ^ back).sum() <= 8


def test_the_window_of_a_crop_is_measured() -> None:
    picture = film(LIVELY)[0]
    a, b = shrink([picture]), shrink([crop(0.1, 0.85, 0.2, 0.9)(picture)])
    start = np.array([0.05, 0.8, 0.15, 0.95])
    window, score = refine(a.astype(np.float32), b.astype(np.float32), start, (0.04, 0.02, 0.01))
    assert score > 0.97 and np.abs(window - [0.1, 0.85, 0.2, 0.9]).max() < 0.02
    there, back = common(window), common(inverse(window))
    assert np.allclose(there[0], back[1], atol=1e-6) and np.allclose(there[1], back[0], atol=1e-6)


def test_the_line_and_the_path_are_those_of_the_edit() -> None:
    rng = np.random.default_rng(0)
    b = np.arange(60) / FPS
    smooth = np.cumsum(rng.normal(size=(60, 20)), axis=0)
    y = unit((smooth - smooth.mean(0)).astype(np.float32))
    a = np.arange(30) / FPS
    shown = 1.25 * a + 1.0
    low = np.interp(shown, b, np.arange(60))
    x = unit(np.array([np.interp(low, np.arange(60), y[:, d]) for d in range(20)], np.float32).T)
    line = best_line(x, y, a, b, 0.6)
    assert line.speed == pytest.approx(1.2, abs=0.14) and line.score > 0.9
    moments = path(x, y, a, b, line)
    assert np.abs((moments.low + moments.share) / FPS - shown).max() < 0.2 and moments.inside.all()


@pytest.mark.parametrize("count", [3000, FLAT + 1000])
def test_candidates_from_either_index(count: int) -> None:
    """A flat one, and an inverted file."""
    rng = np.random.default_rng(0)
    noise = Hashed(rng.integers(0, 256, (count, 16), np.uint8), np.arange(count) + 1000)
    planted = Hashed(noise.hashes[:200], np.arange(200))
    flipped = planted.hashes ^ np.packbits(rng.random((200, 128)) < 0.06, axis=1)
    index = Wholes(Hashed.gather([noise]))
    pairs = {tuple(p) for p in index.near(Hashed(flipped, planted.clips)).tolist()}
    wanted = {(k, k + 1000) for k in range(200)}
    assert len(pairs & wanted) >= 190 and len(pairs - wanted) <= 2
    assert len(Wholes(Hashed.gather([])).near(planted)) == 0


def test_hashes_are_cut_into_stretches() -> None:
    many = [Hashed.of(k, np.zeros((5, 16), np.uint8)) for k in range(7)]
    cut = list(stretches(many, 12))
    assert [len(s) for s in cut] == [15, 15, 5] and np.concatenate([s.clips for s in cut]).tolist() == [
        k for k in range(7) for _ in range(5)
    ]
