"""A folder of samples: videos, and in `prompts.json` what each was asked for. Two of them make pairs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from curation.judging.prompts import Prompt
from manifests.ids import luck

INDEX = "prompts.json"
_VIDEOS = frozenset({".mp4", ".mov", ".mkv", ".webm", ".avi", ".gif"})


@dataclass(frozen=True, slots=True)
class Sample:
    """prompt, concept, motion: "" where the folder does not say."""

    file: Path
    prompt: str = ""
    concept: str = ""
    motion: str = ""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two videos of one prompt. name: that of the files. a, b: of the first folder and of the second."""

    name: str
    a: Path
    b: Path
    prompt: str
    concept: str
    motion: str


def draw(
    checkpoint: Path,
    prompts: Sequence[Prompt],
    to: Path,
    steps: int,
    guidance: float | None = None,
    seed: int = 0,
    tick: Callable[[], None] = lambda: None,
) -> list[Path]:
    """A video for each prompt from a trained model; those that are there are left as they are. The noise depends on the
    seed and the prompt's id, so that two models start from the same."""
    from generator.applications import make
    from generator.sample import write_mp4
    from generator.trained import Trained, Wish

    to.mkdir(parents=True, exist_ok=True)
    wanted = {"checkpoint": str(checkpoint.resolve()), "steps": steps, "guidance": guidance, "seed": seed}
    settings = to / "sampling.json"
    if settings.exists() and json.loads(settings.read_text()) != wanted:
        raise ValueError(f"{to} holds samples of another model or other settings ({settings}); give another folder.")
    settings.write_text(json.dumps(wanted, indent=1) + "\n")
    files: list[Path] = []
    model: Trained | None = None  # loaded once, and only where something is to be drawn
    for prompt in prompts:
        file = to / f"{prompt.id}.mp4"
        if not file.exists():
            half = to / f".{prompt.id}.part.mp4"
            number = seed * 2**20 + int(luck([prompt.id])[0] * 2**20)
            model = model or Trained(checkpoint)
            film = make(model, Wish(prompt.text, steps=steps, guidance=guidance, seed=number))
            write_mp4(half, film.frames, film.fps).replace(file)
        files.append(file)
        tick()
    index = {f"{p.id}.mp4": {k: v for k, v in asdict(p).items() if k != "id"} for p in prompts}
    (to / INDEX).write_text(json.dumps(index, indent=1, ensure_ascii=False) + "\n")
    return files


def read_samples(folder: Path) -> dict[str, Sample]:
    """By the names of the files without their endings. Raises ValueError where there are none."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: there is no such folder of samples.")
    file = folder / INDEX
    try:
        said = json.loads(file.read_text()) if file.exists() else {}
    except ValueError as error:
        raise ValueError(f"{file} cannot be read ({error}).") from None
    found = {}
    for video in sorted(folder.iterdir()):
        if video.suffix.lower() not in _VIDEOS or video.name.startswith("."):
            continue
        about = said.get(video.name, "")
        about = {"text": about} if isinstance(about, str) else about
        words = (str(about.get(key) or "") for key in ("text", "concept", "motion"))
        found[video.stem] = Sample(video, *words)
    if not found:
        raise ValueError(f"{folder}: no video in it ({', '.join(sorted(_VIDEOS))}).")
    return found


def pairs(a: Path, b: Path) -> tuple[list[Pair], list[str]]:
    """Of two folders, by the names of their files; and the names that only one has.

    Raises ValueError where there is no pair, or where two files of one name were asked for different things.
    """
    mine, theirs = read_samples(a), read_samples(b)
    both = sorted(mine.keys() & theirs.keys())
    if not both:
        raise ValueError(
            f"{a} and {b} have no file name in common; a pair is two files of one name, such as those of `vidcurate "
            "sample`."
        )
    made = []
    for name in both:
        x, y = mine[name], theirs[name]
        if x.prompt and y.prompt and x.prompt != y.prompt:
            raise ValueError(f"{name}: asked for {x.prompt!r} in {a} and for {y.prompt!r} in {b}; these are no pair.")
        about = [getattr(x, key) or getattr(y, key) for key in ("prompt", "concept", "motion")]
        made.append(Pair(name, x.file, y.file, *about))
    return made, sorted(mine.keys() ^ theirs.keys())
