"""`vidcurate caption`, `serve` and `prompt`: captions by models that a server serves."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from captioners import serve as serving
from captioners.client import Client, Patience
from captioners.rewriting import PromptRewrite
from curation.captioning.asking import HOW, Asking
from curation.cluster import connect
from curation.folder import Folder
from curation.progress import Board
from curation.run import caption as caption_folder
from curation.run import with_captioner

Dir = Annotated[Path, typer.Argument(help="Folder that `vidcurate run --out` wrote.")]
Servers = Annotated[
    list[str], typer.Option("--server", "--captioner", help="Address of a server; may be repeated to share the work.")
]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model", help="Name that it serves; repeated: the first sees, the last writes. The only one if none."
    ),
]
How = Annotated[str, typer.Option("--how", help=f"One of {', '.join(HOW)}; direct by default.")]


def asked(servers: list[str] | None, models: list[str] | None, tags: bool = False) -> Asking:
    """What `--captioner`, `--model` and `--ask-tags` of other commands say. Raises ValueError for a model without a
    server, and for tags without a model."""
    if models and not servers:
        raise ValueError(f"--model {models[0]}: say where it is served, --captioner URL.")
    if tags and not (servers and models):
        raise ValueError("--ask-tags: say which model to ask and where, --captioner URL --model NAME.")
    return Asking(tuple(servers or ()), tuple(models or ()), tags=models[0] if tags and models else "")


def caption(
    folder: Dir,
    server: Servers,
    model: Models = None,
    how: How = "",
    words: Annotated[int, typer.Option("--words", min=0, help="Most in a caption; 0 for the way's own.")] = 0,
    hints: Annotated[bool, typer.Option("--hints", help="A second pass that is told what the signals say.")] = False,
    rewrite: Annotated[bool, typer.Option("--rewrite", help="A language model puts captions in order.")] = False,
    categories: Annotated[bool, typer.Option("--categories", help="A language model sorts captions.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Ask once more where there came no caption.")] = False,
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, help="Questions at once, over all workers.")] = 32,
    patience: Annotated[float, typer.Option("--patience", min=1, help="Seconds to wait for a lost server.")] = 900.0,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Local worker processes.")] = None,
    scheduler: Annotated[str | None, typer.Option("--scheduler", help="Address of a running Dask scheduler.")] = None,
) -> None:
    """Caption the kept clips of a finished run by a served model; clips that have such a caption are not asked about.

    Examples:

      vidcurate caption out --server http://localhost:8000

      vidcurate caption out --server gpu1:8000 --server gpu2:8000 --how frames --model VLM --model LLM --categories
    """
    opened, board = Folder(folder), Board()
    tags = opened.asking.tags  # whoever gave the tags of this folder, they are measured already
    wish = Asking(
        tuple(server), tuple(model or ()), how, words, hints, rewrite, categories, tags, concurrency, patience
    )
    recipe, asking = with_captioner(opened.plain_recipe, wish)
    with board.shown(), connect(workers, scheduler) as dask:
        took, left = caption_folder(opened.store, recipe, asking, dask, board, again)
    print(
        f"{took['captioned']} clips captioned, {took['unfit']} without a usable caption; {took['requests']} requests "
        f"({took['retries']} repeated), {took['prompt_tokens']} tokens read, {took['completion_tokens']} written"
    )
    if left:
        print(f"vidcurate: {left}.", file=sys.stderr)
        raise typer.Exit(1)


def serve(
    context: typer.Context,
    model: Annotated[str, typer.Option("--model", help="Name on the hub, or a folder.")],
    name: Annotated[str, typer.Option("--name", help="Name to serve it under; its own if none.")] = "",
    host: Annotated[str, typer.Option("--host", help="Address to listen on; 0.0.0.0 lets others in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535)] = 8000,
    length: Annotated[int, typer.Option("--context", min=0, help="Tokens; 0 for the model's own limit.")] = 16384,
    pictures: Annotated[int, typer.Option("--pictures", min=1, help="Most frames in one question.")] = 32,
    at_once: Annotated[int, typer.Option("--at-once", min=0, help="Most questions at once; 0: vLLM's choice.")] = 0,
    gpus: Annotated[int, typer.Option("--gpus", min=1, help="GPUs that share the model.")] = 1,
    memory: Annotated[int, typer.Option("--memory-mb", min=16, help="For the cache, on a machine without GPU.")] = 4096,
    vllm: Annotated[str, typer.Option("--vllm", help="Path of the vllm command, if it is not found.")] = "",
    offline: Annotated[bool, typer.Option("--offline", help="Download nothing.")] = False,
    show: Annotated[bool, typer.Option("--print", help="Print the command instead of running it.")] = False,
) -> None:
    """Serve a video LLM with vLLM, with settings that suit captioning; stop it with Ctrl-C.

    What stands behind -- goes to `vllm serve` as it is.

    Examples:

      vidcurate serve --model Qwen/Qwen2.5-VL-7B-Instruct

      vidcurate serve --model Qwen/Qwen2.5-VL-72B-Instruct --gpus 4 --print -- --quantization fp8
    """
    settings = serving.Serving(model, name, host, port, length, pictures, at_once, gpus, memory)
    command = serving.command(settings, vllm, more=tuple(context.args))
    if show:
        print(shlex.join(command))
        return
    os.execvpe(command[0], command, serving.environment(offline))  # noqa: S606


def prompt(
    text: Annotated[str, typer.Argument(help="What the video is to show, in a few words.")],
    server: Servers,
    model: Annotated[str, typer.Option("--model", help="Name that it serves; the only one if none.")] = "",
    fps: Annotated[float | None, typer.Option("--fps", min=1, help="Frame rate to name at the end.")] = None,
    words: Annotated[int, typer.Option("--words", min=5, help="Most in the description.")] = 80,
) -> None:
    """Rewrite a short prompt into the form of the training captions: camera, description, frame rate.

    Example: vidcurate prompt "a dog in the rain" --server http://localhost:8000 --fps 24
    """

    async def rewritten() -> str:
        async with Client(server, model, Patience(deadline_s=120.0)) as client:
            await client.check(vision=False)
            return (await PromptRewrite(words=words)(client, text, fps)).value

    print(asyncio.run(rewritten()))
