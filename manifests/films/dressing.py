"""What editors put on a picture, with the truth about it: lettering, logos, and borders of every kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from PIL import Image as Pictures
from PIL import ImageDraw, ImageFont

from manifests.types import Image

Color = tuple[int, int, int]
"""Red, green, blue."""
Crop = tuple[int, int, int, int]
"""x, y, width, height."""
Surround = Callable[[Image, int, int], Image]
"""Makes a frame of that width and height to go around a picture."""

_FINE = 2  # letters and logos are drawn larger by so much, so that they are smooth
LOGOS = ("name", "badge", "ring")
PLACES = ("top left", "top right", "bottom left", "bottom right")


def coded(image: Image, quality: int = 88) -> Image:
    """With the losses of a codec; by default those of a frame pack."""
    file = cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, quality))[1]
    return np.asarray(cv2.imdecode(file, cv2.IMREAD_COLOR), np.uint8)


# -- lettering and logos -----------------------------------------------------------------------------------------------


def lettered(
    images: Sequence[Image],
    lines: Sequence[str],
    top: float,
    tall: float,
    *,
    color: Color = (255, 255, 255),
    turn: float = 0.0,
    center: float = 0.5,
) -> tuple[list[Image], float]:
    """Lines of text laid over all pictures, and the share of the frame that the boxes of the lines cover.

    top: where the first begins, tall: their font size; shares of the height. center: of the lines, as a share of the
    width. turn: degrees, counter-clockwise.
    """
    height, width = images[0].shape[:2]
    canvas = Pictures.new("RGBA", (width * _FINE, height * _FINE))
    covered = np.zeros((height * _FINE, width * _FINE), np.uint8)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(tall * height * _FINE)
    rim = (0, 0, 0) if sum(color) > 200 else (255, 255, 255)
    for k, line in enumerate(lines):
        place = (center * width * _FINE, (top + 1.25 * tall * k) * height * _FINE)
        left, upper, right, lower = draw.textbbox(place, line, font=font, anchor="ma", stroke_width=1)
        covered[int(upper) : int(lower) + 1, int(left) : int(right) + 1] = 255
        draw.text(place, line, font=font, anchor="ma", fill=color, stroke_width=1, stroke_fill=rim)
    layer = np.asarray(canvas)
    if turn:
        about = cv2.getRotationMatrix2D((width * _FINE / 2, height * _FINE / 2), turn, 1)
        layer, covered = (cv2.warpAffine(p, about, (p.shape[1], p.shape[0])) for p in (layer, covered))
    return _laid_over(images, layer), float((covered > 127).mean())


def branded(images: Sequence[Image], logo: str, place: str, color: Color, alpha: float) -> list[Image]:
    """A logo with a shadow in a corner of all pictures. alpha: 0..1, how opaque it is."""
    height, width = images[0].shape[:2]
    unit = height * _FINE / 720
    canvas = Pictures.new("RGBA", (width * _FINE, height * _FINE))
    draw = ImageDraw.Draw(canvas)
    for off, paint in ((3, (0, 0, 0, round(160 * alpha))), (0, (*color, round(255 * alpha)))):
        x = (off + 60) * unit if "left" in place else width * _FINE + (off - 220) * unit
        y = (off + 50) * unit if "top" in place else height * _FINE + (off - 110) * unit
        if logo == "name":
            draw.text((x - 20 * unit, y), "Channel 7", font=ImageFont.load_default(40 * unit), fill=paint)
        elif logo == "badge":
            draw.rounded_rectangle((x, y, x + 110 * unit, y + 70 * unit), 16 * unit, fill=paint)
            points = ((40, 15), (40, 55), (75, 35))
            draw.polygon([(x + a * unit, y + b * unit) for a, b in points], fill=(0, 0, 0, 0))
        else:
            draw.ellipse((x, y, x + 80 * unit, y + 80 * unit), outline=paint, width=round(14 * unit))
            draw.line((x + 40 * unit, y, x + 40 * unit, y + 80 * unit), fill=paint, width=round(12 * unit))
    return _laid_over(images, np.asarray(canvas))


def _laid_over(images: Sequence[Image], layer: Image) -> list[Image]:
    """RGBA over BGR."""
    height, width = images[0].shape[:2]
    small = cv2.resize(layer, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
    opaque = small[..., 3:] / 255
    over = [image * (1 - opaque) + small[..., 2::-1] * opaque for image in images]
    return [coded(picture.round().astype(np.uint8)) for picture in over]


# -- borders -----------------------------------------------------------------------------------------------------------


def framed(images: Sequence[Image], crop: Crop, surround: Surround, quality: int = 75) -> list[Image]:
    """Pictures scaled and cut to fill `crop`, inside what `surround` makes of them; the size stays."""
    x, y, width, height = crop
    made = []
    for image in images:
        inside = filling(image, width, height)
        whole = surround(inside, image.shape[1], image.shape[0]).copy()
        whole[y : y + height, x : x + width] = inside
        made.append(coded(whole, quality))
    return made


def filling(image: Image, width: int, height: int) -> Image:
    """Scaled until it fills that size, and cut to it."""
    scale = max(width / image.shape[1], height / image.shape[0])
    size = (max(width, round(image.shape[1] * scale)), max(height, round(image.shape[0] * scale)))
    scaled = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return np.asarray(scaled[top : top + height, left : left + width], np.uint8)


def plain(color: Color) -> Surround:
    return lambda _, width, height: np.full((height, width, 3), color[::-1], np.uint8)


def blurred(inside: Image, width: int, height: int) -> Image:
    """The picture itself, enlarged until it fills the frame, out of focus."""
    return np.asarray(cv2.GaussianBlur(filling(inside, width, height), (0, 0), height / 30), np.uint8)


def striped(seed: int) -> Surround:
    """Stripes of two shades of a colour, at any angle."""
    rng = np.random.default_rng(seed)
    turn, pitch, color = rng.uniform(0, np.pi), rng.integers(8, 30), rng.integers(60, 256, 3)

    def surround(_: Image, width: int, height: int) -> Image:
        y, x = np.mgrid[:height, :width]
        light = ((x * np.cos(turn) + y * np.sin(turn)) // pitch % 2)[..., None]
        return np.asarray(color * (1 - 0.4 * light), np.uint8)

    return surround


def agreement(found: Sequence[int] | None, true: Crop) -> float:
    """Intersection over union of two crops; 0 where none was found."""
    if found is None:
        return 0.0
    x, y, width, height = found
    wide = min(x + width, true[0] + true[2]) - max(x, true[0])
    high = min(y + height, true[1] + true[3]) - max(y, true[1])
    both = max(wide, 0) * max(high, 0)
    return both / (width * height + true[2] * true[3] - both)
