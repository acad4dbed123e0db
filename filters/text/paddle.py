"""PaddleOCR as the text engine: PaddleOCR 3.7's own detector and recogniser, on ONNX Runtime or on Paddle.

Three ways to models: by published name (PaddleOCR downloads them), from local folders, or, where neither is given, the
PP-OCR models that ship inside the rapidocr wheel, for which folders in PaddleOCR's layout are built in the cache. The
last needs no network, gives what `filters.text.ocr.EmbeddedOcr` gives, and shows that the real thing runs.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from filters.text.ocr import (
    MEAN,
    RIM,
    SPREAD,
    THRESHOLD,
    UNCLIP,
    EngineError,
    TextBox,
    alphabet,
    bundled,
    cut_out,
    fitted,
)
from filters.text.ocr import session as onnx_session
from filters.weights import cache_folder, first_line
from manifests.offline import is_offline
from manifests.types import Image

Kind = Literal["det", "rec"]


@dataclass(frozen=True, slots=True)
class PaddleOcr:
    """det, rec:     published names such as PP-OCRv6_medium_det, downloaded by PaddleOCR unless it has them already.
    det_dir, rec_dir: local model folders instead; their inference.yml says what they hold. With neither, the models
                     inside rapidocr.
    backend:         "onnxruntime" (folders with inference.onnx), or "paddle" (inference.json or .pdmodel), for which
                     paddlepaddle has to be installed.
    device:          cpu, gpu or gpu:N; a GPU needs onnxruntime-gpu, or paddlepaddle-gpu.
    batch:           pictures, or lines, at a time on a GPU; a CPU is quicker one by one.
    longest, glance_longest: as for EmbeddedOcr.
    """

    det: str = ""
    rec: str = ""
    det_dir: str = ""
    rec_dir: str = ""
    backend: str = "onnxruntime"
    device: str = "cpu"
    batch: int = 8
    longest: int = 512
    glance_longest: int = 288
    version: int = 1

    def __post_init__(self) -> None:
        if self.backend not in ("onnxruntime", "paddle"):
            raise EngineError(f"PaddleOCR has no backend {self.backend!r}; choose onnxruntime or paddle.")

    def glance(self, images: Sequence[Image]) -> list[list[TextBox]]:
        return self._search(images, self.glance_longest, 0.3)

    def detect(self, images: Sequence[Image]) -> list[list[TextBox]]:
        return self._search(images, self.longest, 0.5)

    def recognize(self, lines: Sequence[tuple[Image, TextBox]]) -> list[tuple[str, float]]:
        model = _model("rec", self.rec, self.rec_dir, self.backend, self.device)
        cut = [cut_out(image, box) for image, box in lines]
        order = sorted(range(len(cut)), key=lambda k: cut[k].shape[1] / cut[k].shape[0])  # those alike share a batch
        found = [("", 0.0)] * len(cut)
        for k, one in zip(order, _run(model, [cut[k] for k in order], batch_size=self._at_once), strict=True):
            if one["rec_text"].strip():
                found[k] = (str(one["rec_text"]), float(one["rec_score"]))
        return found

    @property
    def _at_once(self) -> int:
        return 1 if self.device == "cpu" else self.batch

    def _search(self, images: Sequence[Image], longest: int, least: float) -> list[list[TextBox]]:
        """Boxes of all pictures, those of one size together."""
        model = _model("det", self.det, self.det_dir, self.backend, self.device)
        found: list[list[TextBox]] = [[] for _ in images]
        for shape in {image.shape for image in images}:
            alike = [k for k, image in enumerate(images) if image.shape == shape]
            width, height = fitted(images[alike[0]], longest)
            scale = (shape[1] / width + shape[0] / height) / 2
            given = {
                "limit_side_len": round(max(shape[:2]) / scale),
                "limit_type": "resize_long",
                "unclip_ratio": UNCLIP,
            }
            given |= {"thresh": min(THRESHOLD, least - 0.1), "box_thresh": least, "batch_size": self._at_once}
            for k, one in zip(alike, _run(model, [images[k] for k in alike], **given), strict=True):
                pairs = zip(one["dt_polys"], one["dt_scores"], strict=True)
                boxes = [TextBox(corners.astype("float32"), float(score), RIM * scale) for corners, score in pairs]
                found[k] = sorted(boxes, key=lambda box: float(box.corners[0, 1]))
        return found


_TURN = threading.Lock()


def _run(model: Any, images: list[Image], **settings: Any) -> list[Any]:
    """One thread at a time: a predictor keeps settings and buffers in itself."""
    with _TURN:
        return list(model.predict(images, **settings))


@functools.cache
def _model(kind: Kind, name: str, folder: str, backend: str, device: str) -> Any:
    """PaddleOCR's model, loaded once per process. Raises EngineError with one sentence."""
    os.environ.setdefault("PADDLE_PDX_DISABLE_MODEL_SOURCE_CHECK", "True")  # else it calls model hosts when imported
    if not name and not folder:
        folder = str(bundled_folder(kind))
    if folder:
        name = _described(Path(folder).expanduser(), name, backend)
    elif is_offline() and not _downloaded(name):
        raise EngineError(
            f"PaddleOCR's model {name} is not here and downloads are switched off; "
            f"set {kind}_dir to a folder that holds it, or leave {kind} empty for the models inside rapidocr."
        )
    try:
        import paddleocr
    except ImportError as error:
        raise EngineError(f"PaddleOCR cannot be used ({error}); pip install 'vidcurate[ocr]'.") from error
    logging.getLogger("paddlex").setLevel(logging.ERROR)
    threads = {"intra_op_num_threads": 1, "inter_op_num_threads": 1}
    # Paddle 3.3 cannot run these models through oneDNN.
    how = {"engine_config": threads} if backend == "onnxruntime" else {"cpu_threads": 1, "enable_mkldnn": False}
    kinds = {"det": paddleocr.TextDetection, "rec": paddleocr.TextRecognition}
    place = str(Path(folder).expanduser()) if folder else None
    try:
        return kinds[kind](model_name=name, model_dir=place, engine=backend, device=device, **how)
    except Exception as error:
        raise EngineError(
            f"PaddleOCR cannot load {folder or name} with {backend} on {device} ({first_line(error)}); "
            f"check the folder and the device, or leave {kind}_dir and {kind} empty for the models inside rapidocr."
        ) from error


def _downloaded(name: str) -> bool:
    """Whether PaddleOCR has fetched that model before."""
    home = Path(os.environ.get("PADDLE_PDX_CACHE_HOME") or Path.home() / ".paddlex") / "official_models"
    return any((home / folder).is_dir() for folder in (name, f"{name}_onnx"))


def _described(folder: Path, name: str, backend: str) -> str:
    """Name of the model in a folder, after a look at what PaddleOCR would only stumble over."""
    remedy = "give a PaddleOCR model folder with inference.yml beside the model"
    files = ("inference.onnx",) if backend == "onnxruntime" else ("inference.json", "inference.pdmodel")
    if not (folder / "inference.yml").is_file():
        raise EngineError(f"{folder} has no inference.yml; {remedy}.")
    if not any((folder / file).is_file() for file in files):
        raise EngineError(f"{folder} has no {' or '.join(files)}, which {backend} needs; {remedy}.")
    try:
        said = yaml.safe_load((folder / "inference.yml").read_text("utf-8"))
        held = str(said["Global"]["model_name"])
        steps = [step for step in said["PreProcess"]["transform_ops"] if "NormalizeImage" in step]
        scales = [str((step["NormalizeImage"] or {}).get("scale", 1)) for step in steps]
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, KeyError, AttributeError) as error:
        raise EngineError(
            f"{folder}/inference.yml does not describe a model ({first_line(error)}); {remedy}."
        ) from error
    if any(not re.fullmatch(r"[\d.eE/ -]+", scale) for scale in scales):  # PaddleX evaluates it as Python
        raise EngineError(f"{folder}/inference.yml has a scale that is no number; {remedy}.")
    if name and name != held:
        raise EngineError(f"{folder} holds the model {held}, not {name}; leave the name empty or give another folder.")
    return held


# -- the models inside rapidocr, as PaddleOCR wants them ---------------------------------------------------------------


def bundled_folder(kind: Kind) -> Path:
    """A folder with inference.onnx and inference.yml, made once in the cache."""
    model = bundled(kind)
    digest = hashlib.sha256(model.read_bytes()).hexdigest()[:12]
    folder = cache_folder() / "paddleocr" / f"{model.stem}-{digest}"
    if (folder / "inference.yml").is_file():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        made = Path(work) / folder.name
        made.mkdir()
        shutil.copyfile(model, made / "inference.onnx")
        text = yaml.safe_dump(_description(kind, model), allow_unicode=True)
        (made / "inference.yml").write_text(text, "utf-8")
        with contextlib.suppress(OSError):  # another worker was first
            made.rename(folder)
    return folder


def _description(kind: Kind, model: Path) -> dict[str, Any]:
    """inference.yml of a PP-OCR model, as its publishers write it."""
    version, _, size = model.stem.split("_", 2)
    about = {"Global": {"model_name": f"{version}_{size}_{kind}"}}
    read = {"DecodeImage": {"channel_first": False, "img_mode": "BGR"}}
    if kind == "rec":
        shape = {"RecResizeImg": {"image_shape": [3, 48, 320]}}
        steps = [read, shape, {"KeepKeys": {"keep_keys": ["image"]}}]
        after = {"name": "CTCLabelDecode", "character_dict": alphabet(onnx_session(model))}
        return about | {"PreProcess": {"transform_ops": steps}, "PostProcess": after}
    colours = {
        "mean": [round(float(x), 3) for x in MEAN],
        "std": [round(float(x), 3) for x in SPREAD],
        "order": "hwc",
        "scale": "1./255.",
    }
    kept = {"keep_keys": ["image", "shape", "polys", "ignore_tags"]}
    steps = [
        read,
        {"DetLabelEncode": None},
        {"DetResizeForTest": {"resize_long": 960}},
        {"NormalizeImage": colours},
        {"ToCHWImage": None},
        {"KeepKeys": kept},
    ]
    boxes = {"thresh": 0.3, "box_thresh": 0.6, "max_candidates": 1000, "unclip_ratio": UNCLIP, "use_dilation": True}
    return about | {"PreProcess": {"transform_ops": steps}, "PostProcess": {"name": "DBPostProcess", **boxes}}
