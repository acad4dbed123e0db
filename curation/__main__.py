"""The command `vidcurate`; `python -m curation` is the same."""

from __future__ import annotations

import sys

from curation import early


def main() -> None:
    if sys.argv[1:2] == ["run"] and not any(word.startswith(("--scheduler", "--help")) for word in sys.argv):
        early.start()
    from curation.cli import main as command  # takes a second

    command()


if __name__ == "__main__":
    main()
