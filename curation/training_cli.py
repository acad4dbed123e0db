"""`vidcurate train` and `generate`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from curation.report.training import write_training

if TYPE_CHECKING:
    from generator.options import Options


def train(
    folder: Annotated[Path, typer.Argument(help="Folder that `vidcurate run --out` wrote.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for checkpoints; an earlier training in it is resumed.")],
    recipe: Annotated[str, typer.Option("--recipe", help="Name of a training recipe.")] = "tiny_cogvideox",
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget an earlier training in the folder.")] = False,
    device: Annotated[str, typer.Option("--device", help="cpu or cuda.")] = "cpu",
    processes: Annotated[
        int, typer.Option("--processes", min=1, help="To start here; leave it out under torchrun.")
    ] = 1,
    passes: Annotated[
        int, typer.Option("--passes", min=1, help="Parts of a step's batch, one after the other, to save memory.")
    ] = 1,
    shard: Annotated[bool, typer.Option("--shard", help="Spread weights over the processes (FSDP2).")] = False,
    context: Annotated[int, typer.Option("--context", min=1, help="Processes that share each clip's tokens.")] = 1,
    tensor: Annotated[
        int, typer.Option("--tensor", min=1, help="Processes that share each clip's attention heads and widths.")
    ] = 1,
    compiled: Annotated[bool, typer.Option("--compile", help="Compile the blocks of the transformer.")] = False,
    sample_every: Annotated[int, typer.Option("--sample-every", min=0, help="Steps between sample videos.")] = 0,
    peak: Annotated[float | None, typer.Option("--peak", help="TFLOP/s of the device, for MFU.")] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Log to OUT/tensorboard too.")] = False,
    wandb: Annotated[str, typer.Option("--wandb", help="Log to this project at Weights & Biases too.")] = "",
    vae_from: Annotated[
        Path | None, typer.Option("--vae-from", help="Folder of a trained VAE, to be used as it is.")
    ] = None,
    start: Annotated[
        Path | None, typer.Option("--from", help="Folder of a trained system whose weights to go on from.")
    ] = None,
) -> None:
    """Train VAE, text encoder and transformer on the sampled clips; resumes, with any number of processes.

    Examples:

      vidcurate train out --recipe tiny_cogvideox --out out/train

      vidcurate train best --recipe tiny_cogvideox --out best/train --vae-from out/train/vae --from out/train
    """
    from generator.options import Options

    options = Options(passes, shard, compiled, peak, sample_every, tensorboard, wandb, context, tensor)
    print(train_into(folder, out, recipe, fresh, device, processes, options, vae_from, start))


def train_into(
    folder: Path,
    out: Path,
    recipe: str,
    fresh: bool,
    device: str = "cpu",
    processes: int = 1,
    options: Options | None = None,
    vae_from: Path | None = None,
    start: Path | None = None,
) -> Path:
    """Trains, and writes the training's page."""
    from generator import recipes as training
    from generator.launch import launch
    from generator.options import Options
    from generator.train import train as train_on

    how = options or Options()
    arguments = (folder, training.named(recipe), out, None, device, fresh, vae_from, None, how, start)
    trained = train_on(*arguments) if processes == 1 else launch(processes, train_on, *arguments)
    if os.environ.get("RANK", "0") == "0":
        write_training(trained)
    return trained


def average(
    trained: Annotated[list[Path], typer.Argument(help="Folders that `vidcurate train --out` wrote.")],
    out: Annotated[Path, typer.Option("--out", help="New folder, which generate takes.")],
) -> None:
    """Average the weights of several trained models of one architecture and one VAE.

    Example: vidcurate average out/train-0 out/train-1 --out out/mean
    """
    from generator.averaging import average as mean

    print(mean(trained, out))


def generate(
    checkpoint: Annotated[Path, typer.Argument(help="Folder that `vidcurate train --out` wrote.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The .mp4, or .png, to write.")],
    prompt: Annotated[str, typer.Option("--prompt", help="What to show.")] = "",
    image: Annotated[
        list[Path] | None, typer.Option("--image", help="First frame; given twice, the first and the last.")
    ] = None,
    video: Annotated[
        Path | None, typer.Option("--video", help="Film to go on from, or to put frames into, as --task says.")
    ] = None,
    task: Annotated[
        str,
        typer.Option(
            "--task",
            help="text, image, prediction, interpolation, upsampling (in time), long, views or enlarging; what "
            "--image and --video suggest, by default.",
        ),
    ] = "",
    given: Annotated[int, typer.Option("--given", min=0, help="Frames of the film that prediction starts from.")] = 0,
    between: Annotated[
        int, typer.Option("--between", min=0, help="Frames that upsampling puts between two of the film.")
    ] = 0,
    upsampler: Annotated[
        Path | None, typer.Option("--upsampler", help="Folder of an upsampler, which makes the result larger.")
    ] = None,
    frames: Annotated[
        int | None, typer.Option("--frames", help="To make; 1 is an image. As trained by default.")
    ] = None,
    fps: Annotated[float | None, typer.Option("--fps", help="Frames a second; as trained by default.")] = None,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Sampler steps.")] = 50,
    guidance: Annotated[
        float | None, typer.Option("--guidance", help="Classifier-free guidance scale; the recipe's by default.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the noise.")] = 0,
) -> None:
    """Sample a video from a trained checkpoint: from text, from images, or from frames of a film.

    Examples: vidcurate generate out/train --prompt "Pan left. A bright scene" -o sample.mp4;
    --image first.png (goes on from it); --image first.png --image last.png (what is between);
    --video film.mp4 --given 4 (what comes next); --video film.mp4 --task upsampling (frames between its frames);
    --task long --frames 200; --image front.png --task views -o views.png; --frames 1 -o image.png.
    """
    import generator

    if not (prompt or image or video):
        raise ValueError("there is nothing to show; give --prompt, --image or --video.")
    print(
        generator.generate(
            checkpoint,
            prompt,
            output,
            image,
            steps,
            guidance,
            seed,
            frames,
            fps,
            video,
            task,
            given,
            between,
            upsampler,
        )
    )
