"""Whether models may be downloaded: one switch, known to the libraries that would do it."""

from __future__ import annotations

import os

_SWITCHES = ("VIDCURATE_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


def is_offline() -> bool:
    """Whether this process, or the environment it was started in, forbids downloads."""
    return any(os.environ.get(name, "").lower() not in ("", "0", "false", "no") for name in _SWITCHES)


def go_offline() -> None:
    """Forbids downloads for this process and those it starts."""
    os.environ |= dict.fromkeys(_SWITCHES, "1")
