"""Which window of one picture shows the same as the whole of another: refined by steps of shift and scale."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dedup.windows import Floats, Windows, waves, whitening

_COMMON = 0.9
"""What both pictures show fills at least so much of one of them: a copy is a crop of the other, give or take."""

_MOVES = np.array([(shift, scale) for shift in (0, -1, 1) for scale in (0, -1, 1)], float)

_WEIGHTS = whitening(1.0)


def common(window: Windows) -> tuple[Windows, Windows]:
    """What both a and b show, as a window (4,) of a and as one of b, where the whole of b shows `window` of a, which
    may reach beyond the sides of a."""
    low, high = window[0::2], window[1::2]
    of_a = np.stack([np.clip(low, 0, 1), np.clip(high, 0, 1)], -1)
    of_b = (of_a - low[:, None]) / (high - low)[:, None]
    return of_a.reshape(4), of_b.reshape(4)


def inverse(window: Windows) -> Windows:
    """The window of b that the whole of a shows, where the whole of b shows `window` of a."""
    low, high = window[0::2], window[1::2]
    return np.stack([-low / (high - low), (1 - low) / (high - low)], -1).reshape(4)


def refine(
    a: Floats, b: Floats, window: Windows, steps: tuple[float, ...], least: float = -1.0
) -> tuple[Windows, float]:
    """a, b (P, 32, 32): pairs of pictures, the whole of b being about `window` of a.

    steps: of shift and scale, in shares of the window's size; two tries of each, of either axis by itself. Returns the
    window and the pictures' mean correlation in it; given up where that is below `least` after the first try.
    """
    a, b = (np.ascontiguousarray(pictures.transpose(1, 0, 2)) for pictures in (a, b))
    best = -2.0
    for step in steps:
        for _ in range(2):
            before = best
            for axis in (1, 0):
                sides = window.reshape(2, 1, 2)
                low, high = sides[axis, 0]
                moved = (low + high) / 2 + step * _MOVES[:, 0] * (high - low)
                halves = (high - low) / 2 * (1 + step * _MOVES[:, 1])
                options = [sides[0], sides[1]]
                options[axis] = np.stack([moved - halves, moved + halves], -1)
                score = _scores(a, b, *options)
                k = int(score.argmax())
                if score[k] > best + 1e-4:
                    best = float(score[k])
                    window = np.concatenate([options[n][k if n == axis else 0] for n in (0, 1)])
            if best < least:
                return window, best
            if best <= before + 1e-4:
                break
    return window, best


def _scores(a: Floats, b: Floats, across: Windows, down: Windows) -> npt.NDArray[np.float64]:
    """a, b (32, P, 32): lines of all pictures. across (X, 2), down (Y, 2): sides of windows of a; one of X and Y is 1.
    Mean correlation (X * Y,), less where too little is in common."""
    of_a = [np.clip(sides, 0, 1) for sides in (across, down)]
    of_b = [(own - sides[:, :1]) / np.diff(sides) for own, sides in zip(of_a, (across, down), strict=True)]
    in_a, in_b = ((np.diff(sides[0]) * np.diff(sides[1]))[:, 0] for sides in (of_a, of_b))
    every = waves(np.concatenate([*of_a, *of_b]))
    wide, high, wide_b, high_b = np.split(every, np.cumsum([len(across), len(down), len(across)]))
    x, y = _separable(a, wide, high), _separable(b, wide_b, high_b)
    product, in_x, in_y = (np.einsum("yupxv,yupxv->yxp", p, q) for p, q in ((x, y), (x, x), (y, y)))
    correlation = (product / np.sqrt(in_x * in_y + 1e-9)).mean(-1).ravel()
    return np.asarray(correlation - 2 * np.maximum(0, _COMMON - np.maximum(in_a, in_b)), np.float64)


def _separable(pictures: Floats, wide: Floats, high: Floats) -> Floats:
    """pictures (32, P, 32); waves: wide (X, 12, 32), high (Y, 12, 32). Weighted spectra (Y, 12, P, X, 12) in all
    combinations of them."""
    kept, side = wide.shape[1:]
    rows = (high.reshape(-1, side) @ pictures.reshape(side, -1)).reshape(-1, side)
    both = (rows @ wide.reshape(-1, side).T).reshape(len(high), kept, -1, len(wide), kept)
    return np.asarray(both * _WEIGHTS[:, None, None, :], np.float32)
