"""From what a user names to a list of videos."""

from __future__ import annotations

import functools
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.identify import distinct, group, identify
from curation.job import Video
from curation.recipe import Parts
from curation.sources import list_videos
from manifests.ids import part_id


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.mp4", "a.MOV", "sub/c.webm", "sub/deep/d.ts", "note.txt", "page.html", ".hidden/e.mp4", "._f.mp4"):
        path = tmp_path / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "videos"


def test_folders_are_searched_and_sorted(folder: Path) -> None:
    found = [str(Path(v).relative_to(folder)) for v in list_videos([str(folder)])]
    assert found == ["a.MOV", "b.mp4", "sub/c.webm", "sub/deep/d.ts"]


def test_files_globs_and_repeats(folder: Path) -> None:
    found = list_videos([f"{folder}/*.mp4", str(folder / "b.mp4"), f"{folder}/**/*.ts", str(folder / "page.html")])
    assert [Path(v).name for v in found] == ["b.mp4", "page.html", "d.ts"]


@pytest.mark.parametrize("kind", ["txt", "jsonl", "parquet"])
def test_lists(folder: Path, kind: str) -> None:
    names = ["videos/b.mp4", str(folder / "a.MOV"), "https://example.org/x.mp4"]
    path = folder.parent / f"list.{kind}"
    if kind == "txt":
        path.write_text("# mine\n" + "\n".join(names) + "\n\n")
    elif kind == "jsonl":
        path.write_text("".join(json.dumps({"path": n, "label": 1}) + "\n" for n in names))
    else:
        pq.write_table(pa.table({"uri": names}), path)
    assert list_videos([str(path)]) == sorted([str(folder / "b.mp4"), str(folder / "a.MOV"), names[2]])


def test_wrong_sources_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.jsonl").write_text('{"x": 1}\n')
    (tmp_path / "broken.jsonl").write_text("{\n")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "bad.parquet")
    for source, says in (
        (tmp_path / "empty", "no video found there"),
        (tmp_path / "absent", "there is no such file or folder"),
        (tmp_path / "*.mp4", "no video found there"),
        (tmp_path / "bad.jsonl", "a line has none of the keys"),
        (tmp_path / "broken.jsonl", "cannot be read as a list of videos"),
        (tmp_path / "bad.parquet", "has none of the columns"),
        ("nosuch://bucket/x", "cannot be listed"),
    ):
        with pytest.raises(ValueError, match=says) as caught:
            list_videos([str(source)])
        assert "\n" not in str(caught.value)


class Ranged(http.server.SimpleHTTPRequestHandler):
    """A file server that answers ranges, as object stores do."""

    def send_head(self):  # type: ignore[no-untyped-def]
        asked = self.headers.get("Range")
        if not asked:
            return super().send_head()
        path = Path(self.translate_path(self.path))
        first, _, last = asked.removeprefix("bytes=").partition("-")
        size = path.stat().st_size
        start, end = int(first), min(int(last or size - 1), size - 1)
        file = path.open("rb")
        file.seek(start)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{end}/{size}")
        self.send_header("Content-Length", str(end - start + 1))
        self.end_headers()
        return file

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    handler = functools.partial(Ranged, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


def test_remote_files_are_listed_identified_and_decoded(server: str, tmp_path: Path) -> None:
    from manifests.media.container import decode, open_film
    from tests.media_files import write_video

    path = write_video(tmp_path / "far.mp4", frames=20)
    (remote,) = list_videos([f"{server}/far.mp4"])
    here, there = identify([str(path)])[0], identify([remote])[0]
    assert there.id == here.id and there.bytes == path.stat().st_size
    with open_film(remote) as film:
        assert sum(1 for _ in decode(film)) == 20
    absent = identify([f"{server}/absent.mp4"])[0]
    assert absent.id is None and absent.error is not None and absent.error.startswith("absent.mp4: ")


def videos(*names: str, size: int = 1) -> list[Video]:
    return [Video(f"/v/{n}.mp4", size, n) for n in names]


def test_byte_identical_inputs_count_once() -> None:
    given = [
        Video("/v/b.mp4", 1, "x"),
        Video("/v/a.mp4", 1, "x"),
        Video("/v/c.mp4", 1, "y"),
        Video("/v/d.mp4", 0, None, "why"),
    ]
    fresh, repeats = distinct(given)
    assert [v.uri for v in fresh] == ["/v/a.mp4", "/v/c.mp4"] and repeats == {"/v/b.mp4": "/v/a.mp4"}


def test_grouping_is_the_same_however_often_a_run_is_interrupted() -> None:
    some = videos(*"abcdefghij", size=3_000_000)
    settings = Parts(videos=4, megabytes=8.0)
    whole = {p.name: [v.id for v in p.videos] for p in group(some, settings, {})}
    assert sorted(len(m) for m in whole.values()) == [1, 3, 3, 3]
    for name, members in whole.items():
        done = {name: [str(m) for m in members]}
        assert {p.name: [v.id for v in p.videos] for p in group(some, settings, done)} == whole


def test_new_videos_do_not_disturb_done_parts() -> None:
    old = group(videos("b", "d", "f"), Parts(), {})
    (done,) = old
    parts = group(videos("a", "b", "c", "d", "f", "g"), Parts(), {done.name: ["b", "d", "f"]})
    assert parts[0] == done
    assert [[v.id for v in p.videos] for p in parts[1:]] == [["a"], ["c"], ["g"]]


def test_a_done_part_serves_a_smaller_set_too() -> None:
    parts = group(videos("b", "f"), Parts(), {part_id("bdf"): ["b", "d", "f"]})
    assert [(p.name, [v.id for v in p.videos]) for p in parts] == [(part_id("bdf"), ["b", "f"])]
