"""Which window of one picture shows the same as the whole of another: refined by steps of shift and scale."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dedup.windows import Floats, Windows, waves, whitening

_COMMON = 0.9
"""What both pictures show fills at least so much of one of them: a copy is a crop of the other, give or take."""

_MOVES = np.array([(shift, scale) for shift in (0, -1, 1) for scale in (0, -1, 1)], float)

_WEIGHTS = whitening(1.0)[:, None, :]


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


def refine(a: Floats, b: Floats, window: Windows, steps: tuple[float, ...]) -> tuple[Windows, float]:
    """a, b (P, 32, 32): pairs of pictures, the whole of b being about `window` of a.

    steps: of shift and scale, in shares of the window's size; two tries of each. Returns the window and the pictures'
    mean correlation in it.
    """
    best = -2.0
    for step in steps:
        for _ in range(2):
            sides = window.reshape(2, 1, 2)
            center, size = sides.mean(-1), sides[..., 1] - sides[..., 0]
            centers, sizes = center + step * _MOVES[:, 0] * size, size * (1 + step * _MOVES[:, 1])
            options = np.stack([centers - sizes / 2, centers + sizes / 2], -1)  # (axis, move, side)
            score = _scores(a, b, options, sizes)
            at = divmod(int(score.argmax()), len(_MOVES))
            gained = score[at] > best + 1e-4
            if gained:
                best, window = float(score[at]), np.concatenate([options[0, at[1]], options[1, at[0]]])
            if not gained or at == (0, 0):
                break
    return window, best


def _scores(a: Floats, b: Floats, options: Windows, sizes: Windows) -> npt.NDArray[np.float64]:
    """(moves down, moves across): mean correlation, less where too little is in common."""
    of_a = np.clip(options, 0, 1)
    of_b = (of_a - options[..., :1]) / sizes[..., None]
    in_a, in_b = (np.diff(sides)[..., 0] for sides in (of_a, of_b))
    share = np.maximum(in_a[1][:, None] * in_a[0], in_b[1][:, None] * in_b[0])
    x, y = _separable(a, of_a), _separable(b, of_b)
    product, in_x, in_y = (np.einsum("ypuxv,ypuxv->yxp", p, q) for p, q in ((x, y), (x, x), (y, y)))
    correlation = (product / np.sqrt(in_x * in_y + 1e-9)).mean(-1)
    return np.asarray(correlation - 2 * np.maximum(0, _COMMON - share), np.float64)


def _separable(pictures: Floats, sides: Windows) -> Floats:
    """Weighted spectra of all combinations of 9 windows down with 9 across: (9, P, 12, 9, 12)."""
    across, down = waves(sides[0]), waves(sides[1])
    moves, count, kept = len(across), len(pictures), across.shape[1]
    rows = np.matmul(down[:, None], pictures[None]).reshape(-1, pictures.shape[-1])
    both = rows @ across.reshape(-1, pictures.shape[-1]).T
    return np.asarray(both.reshape(moves, count, kept, moves, kept) * _WEIGHTS, np.float32)
