"""Makes the torchvision wheel of PyPI importable beside a CPU-only torch.

The wheel's C extension is linked against CUDA. Without it `torchvision._meta_registrations` fails with "operator
torchvision::nms does not exist", because it registers shapes for two operators that nobody has declared. This hook
declares their two signatures, only when the extension did not load and only just before that module is imported.
Nothing is pretended: calling `torchvision.ops.nms` still says that the extension is not there. With a matching
torchvision it does nothing.

`python -m curation.torchvision_cpu` installs this file into the running environment, to be imported at start-up.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

_MODULE = "torchvision._meta_registrations"
_NAME = "vidcurate_torchvision_cpu"
_keep: list[object] = []


class _DeclareOperators:
    """A finder that finds nothing, but is asked before the module is."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name == _MODULE:
            sys.meta_path.remove(self)
            import torch
            import torchvision.extension

            if not torchvision.extension._has_ops():
                library = torch.library.Library("torchvision", "FRAGMENT")
                for operator in ("nms", "qnms"):
                    library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
                _keep.append(library)  # a library that is collected takes its declarations along
        return None


def hook() -> None:
    """Waits for torchvision to be imported; harmless where there is none."""
    if "torchvision" not in sys.modules and not any(isinstance(f, _DeclareOperators) for f in sys.meta_path):
        sys.meta_path.insert(0, _DeclareOperators())


def install() -> str:
    """Copies this file into site-packages with a .pth that imports it; returns where."""
    import sysconfig
    from pathlib import Path

    site = Path(sysconfig.get_paths()["purelib"])
    (site / f"{_NAME}.py").write_text(Path(__file__).read_text())
    (site / f"{_NAME}.pth").write_text(f"import {_NAME}\n")
    return str(site)


if __name__ == "__main__":
    install()
elif __name__ == _NAME:
    hook()
