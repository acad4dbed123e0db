"""Buckets: clips that become tensors of one shape, so that they can stand in one batch.

A bucket's name says its picture and its length. `Buckets` names an aspect ratio and a span of durations: `16:9/10.67s`.
`TokenBuckets` names height and width at a base of 512, the base it is scaled to, and the number of frames:
`384x672@768/21f`. `shape` turns a name into height, width and frames, whatever the resolution of the training stage.

Sources: Movie Gen (arXiv 2410.13720) section on data, table 2, for durations, frames and rates; of its five aspect
ratios 1:1, 9:16 and 16:9 are known, and 3:4 and 4:3 are ours. EasyAnimate's `bucket_sampler.py` and `train.py` for the
list of sizes, the rounding and the token budget.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from manifests.ids import luck

Floats = npt.NDArray[np.float64]

MULTIPLE = 16
"""Sides are multiples of this: the factor of a VAE (8) times the side of a transformer's patch (2)."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What every clip of a bucket becomes. seconds: length of the middle part that is shown; None: the whole clip."""

    height: int
    width: int
    frames: int
    seconds: float | None = None

    def times(self, start: int, end: int) -> npt.NDArray[np.int64]:
        """Moments (frames,) of the frames of a clip, evenly spread over what is shown; all in microseconds. A clip that
        is a little shorter than `seconds` is shown whole."""
        span = min(end - start, round(self.seconds * 1e6)) if self.seconds else end - start
        first = start + (end - start - span) // 2
        return first + (np.arange(self.frames) * span) // self.frames


class Bucketing(Protocol):
    """Puts clips into buckets; a frozen dataclass."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the manifest that `assign` reads."""

    @property
    def axes(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What a bucket's name may say before its slash, and behind it, in order."""

    def assign(self, clips: pa.Table) -> pa.StringArray:
        """Name of each clip's bucket, null where none fits."""

    def shape(self, name: str, side: float) -> Shape:
        """What the bucket's clips become where a square picture has `side` pixels a side. Raises ValueError for a name
        that is no bucket's."""


def token_length(frames: int, height: int, width: int, temporal: int = 4, spatial: int = 16) -> int:
    """Tokens of a video: latent frames times patches. temporal: frames per latent frame, the first of k * temporal + 1
    standing alone; spatial: pixels per side of a patch.

    3,328 and 9,216 of EasyAnimate's stages are 49 and 144 frames of 256 x 256.
    """
    return math.ceil(frames / temporal) * (height // spatial) * (width // spatial)


@dataclass(frozen=True, slots=True)
class Length:
    """Clips of `shortest` to less than `longest` seconds become `frames` frames.

    crop: seconds of the clip's middle that are used, at frames / crop frames a second; 0 takes the whole clip, so that
    the rate varies with its duration.
    """

    name: str
    frames: int
    shortest: float
    longest: float = math.inf
    crop: float = 0.0


MOVIE_GEN_LENGTHS = (
    Length("16s", 256, 16.0, crop=16.0),
    Length("12-16s", 256, 12.0, 16.0),
    Length("10.67s", 256, 256 / 24, 12.0, crop=256 / 24),
    Length("8-12s", 192, 8.0, 12.0),
    Length("4-8s", 128, 4.0, 8.0),
)
"""Table 2: 256 frames at 16 a second (middle of 16 s and more), at 21 to 16, and at 24 (middle of 10.67 to 12 s), 192
and 128 frames at 24 or 32 to 16. With 8 frames to a latent frame: 32, 32, 32, 24, 16. The first that fits is taken."""

MOVIE_GEN_SFT_LENGTHS = (
    Length("16s", 256, 16.0, crop=16.0),
    Length("10.67s", 256, 10.6, 16.0, crop=256 / 24),
)
"""Of fine-tuning: 16 frames a second for clips of 16 s, 24 for those of 10.6 to 16 s."""

SHORT_LENGTHS = (Length("2-4s", 64, 2.0, 4.0), Length("1-2s", 32, 1.0, 2.0), Length("0.5-1s", 16, 0.5, 1.0))
"""Ours: Movie Gen's table goes on by halves, 32 to 16 frames a second, for collections of shorter clips."""

MOVIE_GEN_ASPECTS = ("16:9", "4:3", "1:1", "3:4", "9:16")


@dataclass(frozen=True, slots=True)
class Buckets:
    """Aspect ratio times duration, as Movie Gen has it.

    aspects: width to height; a clip goes to the nearest on a logarithmic scale
    lengths: the first that fits is taken
    crop:    largest share of the picture that may be cut off to fit the aspect; clips that would lose more, and clips
             that no length fits, have no bucket
    slack:   seconds that a clip may lack; one that was cut to 16 s ends up to a frame earlier
    """

    aspects: tuple[str, ...] = MOVIE_GEN_ASPECTS
    lengths: tuple[Length, ...] = MOVIE_GEN_LENGTHS
    crop: float = 0.5
    slack: float = 0.05
    version: int = 1

    def __post_init__(self) -> None:
        _ratios(self.aspects)

    @property
    def columns(self) -> tuple[str, ...]:
        return ("aspect", "duration_s")

    @property
    def axes(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Aspects, and lengths with the longest first."""
        return self.aspects, tuple(length.name for length in self.lengths)

    def assign(self, clips: pa.Table) -> pa.StringArray:
        aspect, seconds = _numbers(clips, "aspect"), _numbers(clips, "duration_s") + self.slack
        with np.errstate(divide="ignore", invalid="ignore"):
            apart = np.abs(np.log(aspect)[:, None] - np.log(_ratios(self.aspects)))
        column = np.argmin(apart, axis=1)
        fitting = [(seconds >= length.shortest) & (seconds - self.slack < length.longest) for length in self.lengths]
        row = np.argmax(fitting, axis=0)
        none = ~np.any(fitting, axis=0) | ~(np.exp(-apart.min(axis=1, initial=np.inf)) >= 1 - self.crop)
        names = pa.array([f"{a}/{length.name}" for a in self.aspects for length in self.lengths], pa.string())
        return names.take(pa.array(column * len(self.lengths) + row, mask=none))

    def shape(self, name: str, side: float) -> Shape:
        """The aspect at an area of `side` x `side`, both sides rounded down to multiples of 16."""
        aspect, _, length = name.partition("/")
        known = {each.name: each for each in self.lengths}
        if aspect not in self.aspects or length not in known:
            raise ValueError(f"bucket {name!r} is none of this recipe's; judge the manifest again with it.")
        ratio = float(_ratios((aspect,))[0])
        width, height = side * math.sqrt(ratio), side / math.sqrt(ratio)
        return Shape(_down(height), _down(width), known[length].frames, known[length].crop or None)


EASYANIMATE_SIZES = (
    (256, 1024), (256, 992), (256, 960), (256, 928), (288, 896), (288, 864), (288, 832), (320, 800), (320, 768),
    (352, 736), (352, 704), (352, 672), (384, 672), (384, 640), (416, 608), (416, 576), (448, 576), (448, 544),
    (480, 544), (480, 512), (512, 512), (512, 480), (544, 480), (544, 448), (576, 448), (576, 416), (608, 416),
    (640, 384), (672, 384), (704, 352), (736, 352), (768, 320), (800, 320), (832, 288), (864, 288), (896, 288),
    (928, 256), (960, 256), (992, 256), (1024, 256),
)  # fmt: skip
"""Heights and widths at a base of 512."""

_BASE = 512


@dataclass(frozen=True, slots=True)
class TokenBuckets:
    """EasyAnimate's sizes, and as many frames as a budget of tokens allows.

    sizes:    heights and widths at a base of 512; a clip goes to the nearest height / width
    side:     the base to which sizes are scaled, and the smallest one where `tokens` gives a choice
    frames:   most frames of a clip; interval: frames come as multiples of this and one more; fps: their rate
    inner:    share of the clip that is used (the scripts leave out a tenth at either end)
    least:    clips too short for so many frames have no bucket
    tokens:   frames times pixels that a clip may have (49 * 512 * 512, say); 0: no budget and no choice of base. A clip
              gets a base at random, by a hash of seed and clip id, from `side` up to `largest` in steps of `step`; none
              that is 1.25 times the mean of its own sides or more
    """

    sizes: tuple[tuple[int, int], ...] = EASYANIMATE_SIZES
    side: int = 512
    frames: int = 49
    interval: int = 4
    fps: float = 8.0
    inner: float = 0.8
    least: int = 5
    tokens: int = 0
    largest: int = 1024
    step: int = 128
    seed: int = 0
    version: int = 1

    @property
    def columns(self) -> tuple[str, ...]:
        return ("clip_id", "aspect", "height", "duration_s")

    @property
    def axes(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Sizes at every base, and numbers of frames."""
        pictures = tuple(f"{h}x{w}@{base}" for h, w in self.sizes for base in self.bases)
        return pictures, tuple(f"{k * self.interval + 1}f" for k in range(self.frames // self.interval + 1))

    @property
    def bases(self) -> tuple[int, ...]:
        if not self.tokens:
            return (self.side,)
        return tuple(dict.fromkeys([*range(self.side, self.largest, self.step), max(self.side, self.largest)]))

    def frames_at(self, base: int) -> int:
        """Most frames that the budget allows where a square picture has `base` pixels a side."""
        allowed = min(self.tokens // base**2, self.frames) if self.tokens else self.frames - 1
        return int(allowed // self.interval * self.interval + 1)

    def assign(self, clips: pa.Table) -> pa.StringArray:
        aspect, height = _numbers(clips, "aspect"), _numbers(clips, "height")
        with np.errstate(divide="ignore"):
            apart = np.abs(1 / aspect[:, None] - np.array([h / w for h, w in self.sizes]))
        size = np.argmin(apart, axis=1)
        base = self._drawn(clips, (height + height * aspect) / 2)
        most = np.array([self.frames_at(b) for b in self.bases])[base]
        there = np.nan_to_num(_numbers(clips, "duration_s") * self.fps * self.inner)
        steps = (np.minimum(most, np.maximum(there, 1)) - 1) // self.interval
        none = (there < self.least) | ~np.isfinite(aspect + height) | (most < self.least)
        choices = len(self.axes[1])
        pictures, lengths = self.axes
        names = pa.array([f"{picture}/{length}" for picture in pictures for length in lengths], pa.string())
        place = (size * len(self.bases) + base) * choices + np.minimum(steps, choices - 1).astype(np.int64)
        return names.take(pa.array(place, mask=none))

    def _drawn(self, clips: pa.Table, mean_side: Floats) -> npt.NDArray[np.int64]:
        """Place in `bases` of the base that each clip gets; the first one is open to all."""
        bases = np.array(self.bases)
        if len(bases) == 1:
            return np.zeros(clips.num_rows, np.int64)
        open_to = np.maximum((bases[None] < 1.25 * mean_side[:, None]).sum(axis=1), 1)
        return np.asarray(luck(clips["clip_id"].to_pylist(), self.seed) * open_to, np.int64)

    def shape(self, name: str, side: float = 0) -> Shape:
        """`side` is not looked at: the name says the base."""
        try:
            size, frames = name.removesuffix("f").split("/")
            picture, base = size.split("@")
            height, width = (int(n) for n in picture.split("x"))
            count, scale = int(frames), int(base) / _BASE
        except ValueError:
            raise ValueError(f"bucket {name!r} is no name like 384x672@512/49f; judge the manifest again.") from None
        return Shape(_down(height * scale), _down(width * scale), count, count / self.fps)


def counts(clips: pa.Table) -> dict[str, int]:
    """How many clips each bucket holds; clips without a bucket are left out."""
    counted = clips["bucket"].value_counts()
    return {row["values"]: row["counts"] for row in counted.to_pylist() if row["values"] is not None}


def _ratios(aspects: tuple[str, ...]) -> Floats:
    try:
        pairs = [aspect.split(":") for aspect in aspects]
        ratios = np.array([float(width) / float(height) for width, height in pairs])
    except (ValueError, ZeroDivisionError):
        ratios = np.zeros(1)
    if not len(ratios) or not (ratios > 0).all():
        raise ValueError(f"aspects {', '.join(aspects) or 'none'}: write each as width:height, such as 16:9.")
    return ratios


def _numbers(clips: pa.Table, name: str) -> Floats:
    """A column as numbers, nan for null."""
    return np.asarray(pc.fill_null(pc.cast(clips[name], pa.float64()), math.nan))


def _down(side: float) -> int:
    """To a multiple of 16; half a pixel less than one is one, as areas are seldom whole."""
    return max(MULTIPLE, int((side + 1e-6) // MULTIPLE) * MULTIPLE)
