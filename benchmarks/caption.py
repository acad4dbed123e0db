"""What captioning adds to the server's own time: ratios measured in one run, in alternating pairs.

`python -m benchmarks.caption [--clips 96] [--pairs 4] [--save FILE]`

1. throughput: clips per second of the captioning stage (two Dask workers, frames out of packs, typed answers, captions
   to disk) over requests per second of a bare load generator that sends the very same requests, made beforehand, to the
   same real vLLM server with the same concurrency, and does nothing with the answers. Captions are asked for as by
   default, eight frames and up to 120 words; the model is a tiny one with random weights. The server keeps nothing
   between requests, so that neither side finds its questions answered
2. bookkeeping: milliseconds per clip that the stage takes for 10,000 clips where answers come at once: packs read,
   questions put, captions cleaned and checked, pieces written, joined, and laid out in the manifest
3. the same of DSG-Video, eleven questions a clip: answers grounded in the caption, counted, written in pieces, joined,
   and put into the manifest; with frame packs of 96 clips, and with one that holds all of them

Needs the environment that `make vllm` makes.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pyarrow as pa
from distributed import Client as DaskClient

from benchmarks.curate import machine
from captioners import dsg_forms as forms
from captioners import prompts, wire
from captioners.answers import schema_of
from captioners.ask import Answer, Usage
from captioners.captions import Captions, Share
from captioners.clean import Lints
from captioners.client import Patience
from captioners.dsg import DSG, Checker
from captioners.methods import Direct, form, tokens_for
from captioners.seen import seen
from curation.captioning.kept import Kept, stage_of
from curation.captioning.stage import caption_kept, write_captions
from curation.captioning.work import caption_rows
from curation.checking.stage import Check, Job, by_part, check_rows, results
from curation.cluster import connect
from curation.progress import Board
from manifests import families, packs
from manifests.ids import clip_id
from manifests.schema import CAPTIONS, HALLUCINATION, IDENTITY, conform, merge
from manifests.store import Store
from manifests.types import Frames
from tests.vllm_server import MODEL, TinyServer

CONCURRENCY = 8
FRAMES = 8
PER_PACK = 96
BOOKED = 10_000
TARGETS = {
    "throughput": 0.95,
    "bookkeeping, ms per clip": 1.0,
    "DSG-Video, ms per clip": 1.0,
    "DSG-Video of one large pack, ms per clip": 1.0,
}

_WORDS = Direct().words
_NO_LINTS = Lints(off=("empty", "short", "long", "refusal", "left_over", "loop", "language", "orders"))
CAPTIONS_OF = Captions((Share(Direct(MODEL)),), lints=_NO_LINTS)
DENSE = (
    "A red ball rolls over a wooden table. It falls off the edge and the camera follows it down to the floor, where "
)
DENSE += "a brown dog with a blue collar waits for it in front of a window. The light is warm and comes from the left."
OBJECTS = (
    ("red ball", (2,)), ("wooden table", (2,)),
    ("floor", (3,)), ("brown dog", (3,)), ("blue collar", (3,)), ("window", (3,)),
)  # fmt: skip
CLAIMS = (
    (("red ball", "wooden table"), "Does the red ball roll over the wooden table?"),
    (("red ball",), "Does the red ball fall?"),
    (("brown dog",), "Does the brown dog wait?"),
    (("brown dog", "window"), "Is the brown dog in front of the window?"),
)


def folder(root: Path, clips: int, size: tuple[int, int], frames: int, seed: int, per_pack: int = PER_PACK) -> Store:
    """An output folder with kept clips of noise and their frame packs."""
    store, rng = Store(root), np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for number, start in enumerate(range(0, clips, per_pack)):
        name = f"stages/scan-x/packs/p{seed}-{number:04d}.parquet"
        made = []
        for k in range(start, min(start + per_pack, clips)):
            pictures = [_blobs(rng, size) for _ in range(frames)]
            shown = Frames(pictures, [250_000 * n for n in range(frames)], list(range(frames)), (640, 360), 24.0)
            clip = clip_id(f"{seed}v{k:06d}", 0, 2_000_000)
            made.append((clip, (shown, packs.encode(shown))))
            span = {"start_us": 0, "end_us": 2_000_000, "duration_s": 2.0, "fps": 24.0}
            rows.append({"clip_id": clip, "video_id": f"{k}", "uri": "none.mp4", "pack": name, **span, "kept": True})
        table = packs.table([clip for clip, _ in made], [pack for _, pack in made])
        store.write_table(name, table, packs.ROWS_PER_GROUP)
    columns = merge(IDENTITY, pa.schema([("kept", pa.bool_())]), CAPTIONS, HALLUCINATION)
    store.replace_table("clips.parquet", [conform(pa.Table.from_pylist(rows), columns)])
    return store


def _blobs(rng: np.random.Generator, size: tuple[int, int]) -> Any:
    """A picture that codes about as well as a photograph. size: width, height."""
    import cv2

    small = rng.integers(0, 256, (max(1, size[1] // 12), max(1, size[0] // 12), 3), np.uint8)
    return cv2.resize(small, size, interpolation=cv2.INTER_CUBIC)


def requests(store: Store) -> list[bytes]:
    """The bodies that the stage will send, made without it."""
    clips = store.read_table("clips.parquet").to_pylist()
    packed = {
        r["clip_id"]: r for n in dict.fromkeys(c["pack"] for c in clips) for r in packs.load(store, n).to_pylist()
    }
    kind, bodies = form(_WORDS), []
    for row in clips:
        content = [*seen(row, packed[row["clip_id"]]).pictures(), prompts.DIRECT.format(words=_WORDS)]
        made = wire.request(content, prompts.SYSTEM, tokens_for(kind), 0.0)
        made |= wire.constrained(schema_of(kind), kind.__name__) | {"model": MODEL}
        bodies.append(json.dumps(made).encode())
    return bodies


def bare(url: str, bodies: Sequence[bytes]) -> float:
    """Seconds for all bodies, CONCURRENCY at a time; answers are received and forgotten."""

    async def load() -> float:
        waiting, start = iter(bodies), time.perf_counter()

        async def lane(session: aiohttp.ClientSession) -> None:
            for body in waiting:
                async with session.post(f"{url}/v1/chat/completions", data=body, headers=_JSON) as answer:
                    assert answer.status == 200, await answer.text()
                    await answer.read()

        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(600)) as session:
            await asyncio.gather(*(lane(session) for _ in range(CONCURRENCY)))
        return time.perf_counter() - start

    return asyncio.run(load())


_SERVER = ("--no-enable-prefix-caching", "--mm-processor-cache-gb", "0", "--max-model-len", "8192")
_JSON = {"Content-Type": "application/json"}


def stage(url: str, store: Store, dask: DaskClient) -> float:
    """Seconds of the captioning stage, manifest included."""
    start = time.perf_counter()
    done = caption_kept(store, CAPTIONS_OF, [url], Patience(concurrency=CONCURRENCY), dask, Board())
    write_captions(store, CAPTIONS_OF)
    seconds = time.perf_counter() - start
    assert done.left == done.unfit == 0 and done.usage.requests == done.captioned, done
    return seconds


def throughput(clips: int, pairs: int) -> list[dict[str, float]]:
    """Requests per second of both sides, by pair; every pair has clips of its own, and the order alternates."""
    rounds = []
    with tempfile.TemporaryDirectory() as scratch, connect(2) as dask:
        server = TinyServer(Path(scratch), more=_SERVER)
        server.start()
        try:
            server.wait()
            for pair in range(-1, pairs):  # the first warms everything up
                size = 16 if pair < 0 else clips
                store = folder(Path(scratch) / f"pair{pair}", size, (480, 270), FRAMES, pair + 1)
                bodies = requests(store)
                steps = [lambda: ("bare", bare(server.url, bodies)), lambda: ("stage", stage(server.url, store, dask))]  # noqa: B023
                took = dict(step() for step in (steps if pair % 2 else steps[::-1]))
                if pair >= 0:
                    speeds = {f"{name}, clips/s": size / seconds for name, seconds in took.items()}
                    rounds.append({"throughput": took["bare"] / took["stage"], **speeds})
                    print(f"pair {pair + 1}: " + ", ".join(f"{n} {v:.3f}" for n, v in rounds[-1].items()), flush=True)
        finally:
            server.kill()
    return rounds


class Recorded:
    """Answers at once, with what a model once said: a caption, what DENSE names, what the frames show of it."""

    def __init__(self) -> None:
        self._number = itertools.count()

    async def ask(self, content: Any, answer: Any = str, **_: Any) -> Answer[Any]:
        await asyncio.sleep(0)
        if answer.__name__ == "Reading":
            objects = [forms.SaidObject(name, where, f"Is there a {name} in this frame?") for name, where in OBJECTS]
            claims = [forms.SaidClaim(about, question) for about, question in CLAIMS]
            return Answer(answer(tuple(objects), tuple(claims)), Usage(1, 0, 300, 200))
        if answer.__name__ == "Seen":
            said = "no" if "collar" in content[-1] else "yes"
            return Answer(answer(*(said for _ in dataclasses.fields(answer))), Usage(1, 0, 900, 20))
        number = next(self._number)
        return Answer(
            answer(short=f"A red ball rolls, take {number}.", dense=f"Take {number}. {DENSE}"), Usage(1, 0, 900, 90)
        )

    async def yes(self, content: Any, **_: Any) -> Answer[float]:
        raise NotImplementedError("no tag is asked for here")


def bookkeeping() -> tuple[float, float]:
    """Milliseconds per clip, of this process and on the clock."""
    with tempfile.TemporaryDirectory() as scratch:
        store = folder(Path(scratch), BOOKED, (32, 18), 2, 0)
        captions = Captions((Share(Direct(MODEL)),))
        rows = store.read_table("clips.parquet").sort_by([("pack", "ascending"), ("clip_id", "ascending")])
        start, clock = time.process_time(), time.perf_counter()
        done = asyncio.run(caption_rows(store, captions, Recorded(), rows, 64))
        Kept(store, stage_of(captions)).join()
        write_captions(store, captions)
        spent, passed = time.process_time() - start, time.perf_counter() - clock
        assert done.captioned == BOOKED, done
    return 1000 * spent / BOOKED, 1000 * passed / BOOKED


def checking(per_pack: int) -> float:
    """Milliseconds per clip, of this process."""
    with tempfile.TemporaryDirectory() as scratch:
        store = folder(Path(scratch), BOOKED, (32, 18), FRAMES, 0, per_pack)
        clips = store.read_table("clips.parquet", ["clip_id", "pack"])
        texts = pa.table({"clip_id": clips["clip_id"], "text": [f"Take {k}. {DENSE}" for k in range(BOOKED)]})
        how = Check(("http://localhost:8000",), DSG(model=MODEL))
        job = Job(store.root, "scan-x", how)
        start = time.process_time()
        parts = by_part(store, texts)
        asyncio.run(check_rows(job, Checker(Recorded(), Recorded(), how.settings), list(parts.items())))
        families.update(store, families.CHECKED, found := results(job, store, parts))
        write_captions(store, CAPTIONS_OF)
        spent = time.process_time() - start
        assert found.num_rows == BOOKED and set(found["dsg_video_i"].to_pylist()) == {1 / len(OBJECTS)}
    return 1000 * spent / BOOKED


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--clips", type=int, default=96, help="in each pair")
    options.add_argument("--pairs", type=int, default=4, help="an even number, since the order alternates")
    options.add_argument("--save", type=Path, help="write the figures to this JSON file")
    chosen = options.parse_args()
    own, clock = bookkeeping()
    ratios = {"bookkeeping, ms per clip": round(own, 3), "bookkeeping, ms per clip on the clock": round(clock, 3)}
    ratios |= {"DSG-Video, ms per clip": round(checking(PER_PACK), 3)}
    ratios |= {"DSG-Video of one large pack, ms per clip": round(checking(BOOKED), 3)}
    print(f"bookkeeping of {BOOKED} clips: {ratios}", flush=True)
    rounds = throughput(chosen.clips, chosen.pairs) if chosen.pairs else []
    if rounds:
        # Speeds over all rounds: whoever goes second finds the machine otherwise, and both go second equally often.
        speeds = {name: statistics.harmonic_mean(r[name] for r in rounds) for name in rounds[0] if name != "throughput"}
        ratios |= {"throughput": round(speeds["stage, clips/s"] / speeds["bare, clips/s"], 3)}
        ratios |= {name: round(speed, 3) for name, speed in speeds.items()}
    for name, value in ratios.items():
        bound = "at least" if name == "throughput" else "at most"
        print(f"{name:<42} {value:.3f}" + (f"   (target: {bound} {TARGETS[name]})" if name in TARGETS else ""))
    if chosen.save:
        chosen.save.parent.mkdir(parents=True, exist_ok=True)
        chosen.save.write_text(json.dumps({"ratios": ratios, "rounds": rounds, "machine": machine()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
