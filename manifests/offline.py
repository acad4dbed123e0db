"""Whether models may be downloaded: one switch, known to the libraries that would do it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

SWITCHES = ("VIDCURATE_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


@contextlib.contextmanager
def without_downloads() -> Iterator[None]:
    """Forbids our own downloads for a while, in this process."""
    before = os.environ.get(SWITCHES[0])
    os.environ[SWITCHES[0]] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[SWITCHES[0]]
        else:
            os.environ[SWITCHES[0]] = before


def is_offline() -> bool:
    """Whether this process, or the environment it was started in, forbids downloads."""
    return any(os.environ.get(name, "").lower() not in ("", "0", "false", "no") for name in SWITCHES)


def go_offline() -> None:
    """Forbids downloads for this process and those it starts."""
    os.environ |= dict.fromkeys(SWITCHES, "1")
