"""The command that serves a video LLM with vLLM, with settings that suit captioning.

Captioning asks many short-lived questions with several pictures each: answers are held to a schema, the frames of a
clip are asked about more than once, and nothing needs a context of a hundred thousand tokens, which would only take the
room that more clips at once could have.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

PLACE = "VIDCURATE_VLLM"
"""Environment variable with the path of the `vllm` command."""

_BESIDE = Path(__file__).resolve().parent.parent / ".venv-vllm" / "bin" / "vllm"  # what `make vllm` makes


@dataclass(frozen=True, slots=True)
class Serving:
    """model: name on the hub, or a folder. name: under which it is asked for, the model's own by default. context:
    tokens of question and answer, 0 for the model's own. pictures: most in one question. at_once: most questions at
    once, 0 for vLLM's choice. gpus: over how many the model is split. memory_mb: for the KV cache on a CPU."""

    model: str
    name: str = ""
    host: str = "127.0.0.1"
    port: int = 8000
    context: int = 16384
    pictures: int = 32
    at_once: int = 0
    gpus: int = 1
    memory_mb: int = 4096


def command(serving: Serving, vllm: str = "", gpu: bool | None = None, more: tuple[str, ...] = ()) -> list[str]:
    """Program and arguments. gpu: whether there is one, None to look; more: further arguments of `vllm serve`.

    Raises ValueError when there is no vllm.
    """
    on_gpu = has_gpu() if gpu is None else gpu
    folder = Path(serving.model)
    local = str(folder.resolve()) if folder.is_dir() else serving.model
    said: dict[str, object] = {
        "--served-model-name": serving.name or serving.model,
        "--host": serving.host,
        "--port": serving.port,
        "--limit-mm-per-prompt": json.dumps({"image": serving.pictures, "video": 1}),
        "--structured-outputs-config": json.dumps({"backend": "xgrammar", "disable_any_whitespace": True}),
        "--uvicorn-log-level": "warning",
    }
    if serving.context:
        said["--max-model-len"] = serving.context
    if serving.at_once:
        said["--max-num-seqs"] = serving.at_once
    if on_gpu and serving.gpus > 1:
        said["--tensor-parallel-size"] = serving.gpus
    if not on_gpu:
        said |= {"--dtype": "bfloat16", "--kv-cache-memory-bytes": serving.memory_mb << 20}
    eager = [] if on_gpu else ["--enforce-eager"]
    pairs = [text for key, value in said.items() for text in (key, str(value))]
    return [find(vllm), "serve", local, *pairs, *eager, *more]


def environment(offline: bool = False, gpu: bool | None = None) -> dict[str, str]:
    """Of the server's process: it reports to nobody, and downloads nothing if `offline`."""
    made = {**os.environ, "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    if not (has_gpu() if gpu is None else gpu):
        made.pop("VLLM_CPU_KVCACHE_SPACE", None)  # counts in whole GiB and would override the command's bytes
        made["TORCHDYNAMO_DISABLE"] = "1"  # for a quarter of a minute it would compile what gains nothing here
    if offline:
        made |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    return made


def find(vllm: str = "") -> str:
    """Path of the `vllm` command: the one named, that of the environment variable, of `make vllm`, of this environment,
    or on the search path. Raises ValueError when there is none."""
    named = vllm or os.environ.get(PLACE, "")
    if named:
        if shutil.which(named) is None:
            raise ValueError(f"{named}: there is no such command; give the path of vllm.")
        return named
    beside = (_BESIDE, Path(sys.executable).with_name("vllm"))
    found = next((str(path) for path in beside if path.is_file()), None) or shutil.which("vllm")
    if found is None:
        raise ValueError(
            "vLLM is not installed; run `make vllm`, or pip install vllm in an environment of its own and say where "
            f"with --vllm PATH or {PLACE}."
        )
    return found


def has_gpu() -> bool:
    """Whether the machine has an NVIDIA or AMD accelerator that its driver knows."""
    return any(Path(device).exists() for device in ("/dev/nvidia0", "/dev/kfd"))
