"""Where the weights of learned signals come from: a local file, or a download that is kept and checked."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import shutil
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from manifests.offline import is_offline

log = logging.getLogger("vidcurate")

T = TypeVar("T")

_PATIENCE = 60.0
"""Seconds for which a refusal is remembered: the clips of a part shall not each wait for the same dead network."""


def cache_folder() -> Path:
    """Where downloads are kept: $XDG_CACHE_HOME/vidcurate, by default ~/.cache/vidcurate."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vidcurate"


def is_url(source: str) -> bool:
    return source.startswith(("https://", "http://"))


def find(source: str, checksum: str = "") -> Path:
    """The local file of some weights: `source` is a path, or a URL that is downloaded once.

    checksum: "sha256:..." or "md5:..." that the file must have, "" for any.

    Raises ValueError with one sentence when there is no such file, it cannot be had, or it is another one.
    """
    if not is_url(source):
        path = Path(source).expanduser()
        if not path.is_file():
            raise ValueError(f"weights {source} are not there; give the path of a file or an https:// address.")
        _check(path, checksum, source)
        return path
    name = Path(unquote(urlsplit(source).path)).name or "weights"
    path = cache_folder() / f"{hashlib.sha256(source.encode()).hexdigest()[:8]}-{name}"
    if path.is_file():
        _check(path, checksum, source)
        return path
    remedy = f"fetch it from {source} and set the path of the file instead"
    if is_offline():
        raise ValueError(f"{name} is not here and downloads are switched off; {remedy}.")
    try:
        _download(source, path, checksum)
    except OSError as error:
        raise ValueError(f"{name} cannot be downloaded ({first_line(error)}); {remedy}.") from error
    return path


def _download(url: str, path: Path, checksum: str) -> None:
    """Into a file of its own first, so that workers do not read each other's halves."""
    log.info("downloading %s to %s", url, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        with urllib.request.urlopen(url, timeout=60) as source, part.open("wb") as target:  # noqa: S310 http(s) only
            shutil.copyfileobj(source, target, 1 << 20)
            promised = source.headers.get("Content-Length")
        if promised and part.stat().st_size != int(promised):
            raise OSError(f"{part.stat().st_size} of {promised} bytes arrived")
        _check(part, checksum, url)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _check(path: Path, checksum: str, source: str) -> None:
    if not checksum:
        return
    kind, _, wanted = checksum.partition(":")
    if kind not in ("sha256", "md5"):
        raise ValueError(f"checksum {checksum!r}: write sha256:... or md5:...")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, kind).hexdigest()
    if found != wanted.strip().lower():
        raise ValueError(f"{source} is another file than expected: its {kind} is {found}; remove {path} or fetch anew.")


def once(make: Callable[..., T]) -> Callable[..., T]:
    """`make`, called once per process for the same arguments, even by several threads; a refusal (ValueError) is
    remembered for a minute."""
    made: dict[Any, T] = {}
    refused: dict[Any, tuple[float, ValueError]] = {}
    lock = threading.Lock()

    @functools.wraps(make)
    def get(*settings: Any) -> T:
        with lock:
            if settings in made:
                return made[settings]
            when, error = refused.get(settings, (-_PATIENCE, None))
            if error is not None and time.monotonic() - when < _PATIENCE:
                raise ValueError(str(error))
            try:
                made[settings] = make(*settings)
            except ValueError as error:
                refused[settings] = (time.monotonic(), error)
                raise
            return made[settings]

    return get


def first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
