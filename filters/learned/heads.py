"""Aesthetic heads: from a picture's embedding to a score of about 1 to 10.

The published heads are stacks of linear layers without a nonlinearity between them (dropout does nothing after
training), so each of them is one affine function. It is multiplied out once, in double precision, and a score costs
one inner product. Read are

- LAION-Aesthetics V1: one layer, keys `weight`, `bias` (`sa_0_4_vit_l_14_linear.pth`: 768 -> 1)
- LAION-Aesthetics V2, improved-aesthetic-predictor: keys `layers.0`, `.2`, `.4`, `.6`, `.7`
  (`sac+logos+ava1-l14-linearMSE.pth`: 768 -> 1024 -> 128 -> 64 -> 16 -> 1)
- Aesthetic Predictor V2.5: keys `scoring_head.0`, `.2`, `.4`, `.6`, `.8` (1152 -> 1024 -> 128 -> 64 -> 16 -> 1)

`ava+logos-l14-reluMSE.pth` was trained with ReLU between its layers, but its authors' own inference script loads it
into the stack without; what comes out here is what comes out there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from filters.weights import tensors

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """score = weight (D,) . embedding + bias"""

    weight: Floats
    bias: float

    def __call__(self, embeddings: npt.NDArray[np.float32]) -> Floats:
        """embeddings (N, D) of unit length -> scores (N,)."""
        return np.asarray(embeddings @ self.weight + self.bias, np.float64)


def read_head(path: Path, size: int, model: str) -> Head:
    """The head in a file, for embeddings of `size` numbers that `model` makes.

    Raises ValueError with one sentence when the file holds no such head or one for another size.
    """
    layers = _layers(path)
    if layers[0][0].shape[1] != size:
        raise ValueError(
            f"{path} scores embeddings of {layers[0][0].shape[1]} numbers, and {model} makes {size}; choose the head "
            "that was trained for this model."
        )
    weight, bias = np.eye(size), np.zeros(size)
    for matrix, offset in layers:
        weight, bias = matrix @ weight, matrix @ bias + offset
    return Head(weight[0], float(bias[0]))


def _layers(path: Path) -> list[tuple[Floats, Floats]]:
    """Matrices (out, in) and offsets (out,), in the order of the numbers in their names; each fits the one before, and
    the last has one output."""
    wrong = ValueError(f"{path} is no aesthetic head: wanted is a stack of linear layers that ends in one number.")
    state = {name: value.detach().double().numpy() for name, value in tensors(path).items()}
    names = sorted((n.removesuffix("weight") for n in state if n.endswith("weight")), key=_numbers)
    if not names or set(state) != {prefix + part for prefix in names for part in ("weight", "bias")}:
        raise wrong
    layers = [(state[prefix + "weight"], state[prefix + "bias"]) for prefix in names]
    if any(matrix.ndim != 2 or offset.shape != matrix.shape[:1] for matrix, offset in layers):
        raise wrong
    sizes = [matrix.shape for matrix, _ in layers]
    if sizes[-1][0] != 1 or any(after[1] != before[0] for before, after in pairwise(sizes)):
        raise wrong
    return layers


def _numbers(name: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", name)]
