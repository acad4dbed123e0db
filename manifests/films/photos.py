"""Photographs that ship inside the scikit-image and scikit-learn wheels, as backdrops of synthetic films.

Both projects state the sources and licences of their sample images (public domain, CC0 and CC BY among them); nothing
is copied out of the wheels.
"""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

import cv2
import numpy as np

from manifests.types import Image

_FILES = {
    "astronaut": ("skimage", "data/astronaut.png"),
    "cat": ("skimage", "data/chelsea.png"),
    "coffee": ("skimage", "data/coffee.png"),
    "rocket": ("skimage", "data/rocket.jpg"),
    "motorcycle": ("skimage", "data/motorcycle_left.png"),
    "galaxies": ("skimage", "data/hubble_deep_field.jpg"),
    "tissue": ("skimage", "data/ihc.png"),
    "cameraman": ("skimage", "data/camera.png"),
    "bricks": ("skimage", "data/brick.png"),
    "grass": ("skimage", "data/grass.png"),
    "gravel": ("skimage", "data/gravel.png"),
    "temple": ("sklearn", "datasets/images/china.jpg"),
    "dahlia": ("sklearn", "datasets/images/flower.jpg"),
}
NAMES = tuple(_FILES)


@functools.cache
def photo(name: str) -> Image:
    """BGR (H, W, 3), read-only. Raises ValueError when the package that holds it is not installed."""
    package, inside = _FILES[name]
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ValueError("sample films need the photographs of two packages: pip install 'vidcurate[demo]'.")
    image = cv2.imread(str(Path(spec.origin).parent / inside), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError(f"the photograph {inside} is missing from {package}; reinstall it.")
    image.flags.writeable = False
    return np.asarray(image, np.uint8)
