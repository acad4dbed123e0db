"""What `make demo` runs: sample films (or the user's own) through the whole of vidcurate."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path


def main() -> None:
    """Curates, trains and samples, and says where everything is."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--out", type=Path, default=Path("demo"))
    options.add_argument("--videos", help="a folder of your own videos instead of the sample films")
    chosen = options.parse_args()
    start = time.monotonic()
    videos = chosen.videos
    if not videos:
        from manifests.films.sets import write_demo

        videos = str(chosen.out / "films")
        print(f"rendering sample films into {videos}")
        write_demo(videos)
    out = chosen.out / "out"
    command = [sys.executable, "-m", "curation", "end-to-end", videos, "--out", str(out), "--offline", "--fresh"]
    code = subprocess.run(command, check=False).returncode  # noqa: S603
    if code == 0:
        print(f"\ndone in {time.monotonic() - start:.0f} s; look at {(out / 'report.html').resolve()}")
    sys.exit(code)


if __name__ == "__main__":
    main()
