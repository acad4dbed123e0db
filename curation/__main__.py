"""The command `vidcurate`; `python -m curation` is the same."""

from __future__ import annotations

import sys

from curation import early

_WITH_WORKERS = ("run", "end-to-end", "caption", "check")


def main() -> None:
    elsewhere = any(word.startswith(("--scheduler", "--help")) for word in sys.argv)
    if sys.argv[1:2] and sys.argv[1] in _WITH_WORKERS and not elsewhere:
        early.start()
    from curation.cli import main as command  # takes a second

    command()


if __name__ == "__main__":
    main()
