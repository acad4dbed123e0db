"""Size of the subject: what share of the picture the main thing in it takes.

Movie Gen drops clips whose subjects are small, by an object detector (Zhou et al. 2022), before people pick the clips
of its last stage. Without one, two things are looked at:

moving_area   what moves against the camera: the largest connected part of the picture that the fitted camera motion
              does not explain
salient_area  what stands out: the largest connected part whose colour is unlike that of three or more of the picture's
              edges

`subject_area` is the larger of the two, or of these and a head and torso around the largest face. Things beside the
subject stand out too, so it errs to the large side: a clip that it calls small is small, but not every small subject is
found. `DetectedSubject` is the place of a learned detector, whose word counts alone.

Sources: Movie Gen (arXiv 2410.13720), section on fine-tuning data; Fang et al. 2021, "You only look at one sequence";
Zhang et al. 2015, "Minimum barrier salient object detection at 80 FPS", for the picture's edges as a model of the
background, and for leaving out the one that fits worst.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from filters.looks.frames import LOOKS
from filters.looks.picture import inside
from filters.motion.flow import TENTHS, camera_path, grid
from filters.motion.parallax import looks
from filters.people.faces import spread
from filters.weights import device, first_line, once
from manifests.offline import is_offline
from manifests.schema import column
from manifests.types import Clip, Frames, Image

Map = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class MovingArea:
    """least: pixels at 180 lines by which a point must miss the camera's motion; noise: or so many times the typical
    error of the fit, if that is more."""

    least: float = 0.8
    noise: float = 4.0
    wants = TENTHS
    schema: ClassVar[pa.Schema] = pa.schema(
        [column("moving_area", pa.float64(), "largest part that moves against the camera", range="0..1")]
    )

    def __call__(self, clips: Sequence[Clip], frames: Sequence[Frames]) -> dict[str, list[Any]]:
        return {"moving_area": [self._share(f) if len(f) > 1 else None for f in frames]}

    def _share(self, frames: Frames) -> float:
        """Upper quartile over up to six looks at the clip: a subject may rest in some."""
        if not len(frames.share(camera_path)):  # too small for flow
            return 0.0
        look = frames.share(looks)
        if not len(look):
            return 0.0
        rows, columns = grid(*look.size)
        shape = len(np.unique(rows)), len(np.unique(columns))
        shares = []
        for rest, sure in zip(look.rest, look.sure, strict=True):
            bound = max(self.least, self.noise * 1.4826 * float(np.median(rest[sure])))
            moved = (sure & (rest > bound)).reshape(shape)
            closed = cv2.morphologyEx(moved.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
            shares.append(float(_largest(closed).mean()))
        return float(np.quantile(shares, 0.75))


@dataclass(frozen=True, slots=True)
class SalientArea:
    """looks: frames of a clip that are looked at; lines: to which they are scaled; edge: share of the picture that each
    of its four edges takes."""

    looks: int = 4
    lines: int = 96
    edge: float = 0.08
    wants = LOOKS
    schema: ClassVar[pa.Schema] = pa.schema(
        [column("salient_area", pa.float64(), "largest part that stands out by its colour", range="0..1")]
    )

    def __call__(self, clips: Sequence[Clip], frames: Sequence[Frames]) -> dict[str, list[Any]]:
        return {"salient_area": [self._share(f) if len(f) else None for f in frames]}

    def _share(self, frames: Frames) -> float:
        pictures = frames.share(inside).images
        shares = [float(self.region(pictures[k]).mean()) for k in spread(len(pictures), self.looks)]
        return float(np.median(shares))

    def region(self, image: Image) -> Map:
        """The part (h, w) of a BGR picture that stands out most, at `lines` lines."""
        if min(image.shape[:2]) < 24:
            return np.zeros(image.shape[:2], bool)
        scale = min(1.0, self.lines / min(image.shape[:2]))
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        colors = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_BGR2Lab)
        lab: npt.NDArray[np.float32] = np.asarray(cv2.GaussianBlur(colors, (0, 0), 1.5), np.float32)
        rim = max(2, round(self.edge * min(lab.shape[:2])))
        edges = (lab[:rim], lab[-rim:], lab[:, :rim], lab[:, -rim:])
        unlike = np.stack([_unlike(lab, edge.reshape(-1, 3)) for edge in edges])
        total = unlike.sum(axis=0) - unlike.max(axis=0)  # a subject that touches one edge is no background for that
        if total.max() < _PLAIN:
            return np.zeros(total.shape, bool)
        grey = (255 * total / total.max()).astype(np.uint8)
        _, marked = cv2.threshold(grey, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
        return _largest(cv2.morphologyEx(marked, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)))


_PLAIN = 1e-3


def _unlike(lab: npt.NDArray[np.float32], edge: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(h, w), 0..1: distance of every colour from those of an edge (n, 3), in their own spread."""
    spread_out = np.cov(edge.T) + 9 * np.eye(3)  # no edge is so plain that three levels are much
    off = lab - edge.mean(axis=0)
    distance = np.sqrt(np.einsum("hwi,ij,hwj->hw", off, np.linalg.inv(spread_out), off))
    return np.asarray(distance / max(float(distance.max()), 1.0), np.float32)


def _largest(marked: npt.NDArray[np.generic]) -> Map:
    """The largest connected part of a mask."""
    count, labels, facts, _ = cv2.connectedComponentsWithStats(np.asarray(marked, np.uint8), connectivity=8)
    if count < 2:
        return np.zeros(np.shape(marked), bool)
    return np.asarray(labels == 1 + facts[1:, cv2.CC_STAT_AREA].argmax(), bool)


@dataclass(frozen=True, slots=True)
class DetectedSubject:
    """A learned detector of the YOLOS family (Fang et al. 2021), which transformers runs without compiled operators.

    model:  a repository's name, or a folder with its config.json, model.safetensors and preprocessor_config.json
    looks:  frames of a clip that are looked at; least: probability of an object.
    """

    model: str = "hustvl/yolos-tiny"
    looks: int = 4
    least: float = 0.5
    wants = LOOKS
    schema: ClassVar[pa.Schema] = pa.schema(
        [column("detected_area", pa.float64(), "box of the largest object that a detector saw", range="0..1")]
    )

    def prepare(self) -> None:
        """Loads the detector. Raises ValueError with one sentence when it cannot be had."""
        _detector(self.model)

    def __call__(self, clips: Sequence[Clip], frames: Sequence[Frames]) -> dict[str, list[Any]]:
        """Raises ValueError when the detector cannot be had."""
        return {"detected_area": [self._share(f) if len(f) else None for f in frames]}

    def _share(self, frames: Frames) -> float:
        """Median over the frames, 0 for one without an object."""
        import torch

        detector = _detector(self.model)
        pixels = np.stack([detector.pixels(frames.images[k]) for k in spread(len(frames), self.looks)])
        with torch.inference_mode():
            seen = detector.network(torch.from_numpy(pixels).to(detector.device))
        sure = seen.logits.softmax(-1)[..., :-1].amax(-1) >= self.least  # the last class is "nothing"
        sizes = seen.pred_boxes[..., 2] * seen.pred_boxes[..., 3] * sure
        return min(1.0, float(sizes.amax(-1).median()))


@dataclass(frozen=True, slots=True, eq=False)
class _Detector:
    network: Any
    device: Any
    short: int
    long: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def pixels(self, image: Image) -> npt.NDArray[np.float32]:
        """(3, h, w), normalised, with the published short side, unless the long one became too long."""
        height, width = image.shape[:2]
        scale = min(self.short / min(height, width), self.long / max(height, width))
        size = max(32, round(width * scale)), max(32, round(height * scale))  # strips would leave no patch
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        rgb = cv2.resize(image, size, interpolation=how)[..., ::-1].astype(np.float32) / 255
        normal = (rgb - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        return np.ascontiguousarray(normal.transpose(2, 0, 1), np.float32)


@once
def _detector(source: str) -> _Detector:
    """Raises ValueError with one sentence."""
    try:
        from transformers import AutoImageProcessor, YolosForObjectDetection
    except (ImportError, RuntimeError) as error:
        raise ValueError(
            f"detected subjects need transformers ({first_line(error)}): pip install 'vidcurate[learned]'."
        ) from error
    loader: Any = YolosForObjectDetection  # its annotation knows nothing of output_loading_info
    offline = is_offline()
    try:
        network, report = loader.from_pretrained(
            source, local_files_only=offline, use_safetensors=True, output_loading_info=True
        )
        if report["missing_keys"]:  # transformers would go on with random numbers
            raise ValueError(f"its weights lack {len(report['missing_keys'])} tensors")
        told = AutoImageProcessor.from_pretrained(source, local_files_only=offline)
        size = told.size
        sides = int(size["shortest_edge"]), int(size["longest_edge"])
    except Exception as error:
        raise ValueError(
            f"detector {source} cannot be loaded ({first_line(error)}); give a repository's name, or a folder that "
            "holds its config.json, model.safetensors and preprocessor_config.json."
        ) from error
    where = device()
    ready = network.eval().requires_grad_(False).to(where)
    return _Detector(ready, where, *sides, tuple(told.image_mean), tuple(told.image_std))


@dataclass(frozen=True, slots=True)
class SubjectArea:
    """torso: a head and torso as a multiple of the face's box; clips without any of the columns have none."""

    torso: float = 6.0
    early: ClassVar[bool] = False
    reads: ClassVar[tuple[str, ...]] = ("moving_area", "salient_area", "face_area", "detected_area")
    schema: ClassVar[pa.Schema] = pa.schema(
        [column("subject_area", pa.float64(), "the main subject as a share of the picture", range="0..1")]
    )

    def __call__(self, clips: pa.Table) -> dict[str, Any]:
        none = pa.nulls(clips.num_rows, pa.float64())
        moving, salient, face, detected = (clips[n] if n in clips.column_names else none for n in self.reads)
        body = pc.min_element_wise(pc.multiply(face, self.torso), 1.0, skip_nulls=False)
        return {"subject_area": pc.coalesce(detected, pc.max_element_wise(moving, salient, body))}
