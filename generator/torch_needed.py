"""Imported before torch by every module a user can enter through, so that its absence is answered by a sentence."""

from __future__ import annotations

import importlib.util

MISSING = [name for name in ("torch", "safetensors") if importlib.util.find_spec(name) is None]

if MISSING:
    raise ValueError(f"training needs {' and '.join(MISSING)}: pip install 'vidcurate[train]'")
