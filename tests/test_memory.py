"""Memory is bounded by the open clip, not by the film: two hours cost what ten minutes cost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from manifests.films.film import Film, render, repeat
from manifests.films.shots import Shot

ROOT = Path(__file__).parent.parent
LIMIT_MB = 1000.0

SCAN = """
import sys
from curation import recipes
from curation.identify import identify
from curation.job import Job, Part, peak_memory_mb
from curation.costly import measure_part
from curation.scan import scan_part
videos = tuple(identify(sys.argv[2:]))
packed = Job(sys.argv[1], recipes.embedded()).pack_up()
part = Part("part", videos)
receipt = scan_part(packed, part)
measure_part(packed, part)
print(receipt.rows, peak_memory_mb())
"""


def scanned(out: Path, film: Path) -> tuple[int, float]:
    """Clips found, and the largest resident memory in megabytes of a process that did scan and text."""
    done = subprocess.run(
        [sys.executable, "-c", SCAN, str(out), str(film)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    rows, memory = done.stdout.split()
    return int(rows), float(memory)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_two_hours_cost_what_ten_minutes_cost(tmp_path: Path) -> None:
    """One shot without a cut, the worst case: nothing but the longest piece closes a clip."""
    shot = Shot("temple", 60.0, "static", actors=3)
    minute = Path(render(Film("minute", (shot,), width=192, height=108, fps=10), tmp_path, crf=30).path)
    short = scanned(tmp_path / "a", repeat(minute, tmp_path / "short.mp4", 10))
    long = scanned(tmp_path / "b", repeat(minute, tmp_path / "long.mp4", 120))
    print(f"\n10 minutes: {short[0]} clips, {short[1]:.0f} MB; 2 hours: {long[0]} clips, {long[1]:.0f} MB")
    assert long[0] >= 12 * short[0] - 12 and short[0] >= 30
    assert long[1] < LIMIT_MB and long[1] < short[1] + 100


@pytest.mark.slow
def test_large_fast_films_stay_below_the_limit(tmp_path: Path) -> None:
    film = Film("piece", (Shot("temple", 2.0, "static", actors=1),), width=1920, height=1080, fps=60)
    piece = Path(render(film, tmp_path, crf=35).path)
    rows, memory = scanned(tmp_path / "out", repeat(piece, tmp_path / "large.mp4", 13))
    print(f"\n1080p at 60 fps: {rows} clips, {memory:.0f} MB")
    assert rows == 2 and memory < LIMIT_MB
