"""`vidcurate train` and `generate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from curation.report.training import write_training


def train(
    folder: Annotated[Path, typer.Argument(help="Folder that `vidcurate run --out` wrote.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for checkpoints; an earlier training in it is resumed.")],
    recipe: Annotated[str, typer.Option("--recipe", help="Name of a training recipe.")] = "tiny_cogvideox",
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget an earlier training in the folder.")] = False,
) -> None:
    """Train VAE, text encoder and transformer on the sampled clips; resumes.

    Example: vidcurate train out --recipe tiny_cogvideox --out out/train
    """
    print(train_into(folder, out, recipe, fresh))


def train_into(folder: Path, out: Path, recipe: str, fresh: bool) -> Path:
    """Trains, and writes the training's page."""
    from generator import recipes as training
    from generator.train import train as train_on

    trained = train_on(folder, training.named(recipe), out, fresh=fresh)
    write_training(trained)
    return trained


def generate(
    checkpoint: Annotated[Path, typer.Argument(help="Folder that `vidcurate train --out` wrote.")],
    prompt: Annotated[str, typer.Option("--prompt", help="What to show.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The .mp4 to write.")],
    image: Annotated[
        Path | None, typer.Option("--image", help="First frame, where the model was trained for it.")
    ] = None,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Sampler steps.")] = 50,
    guidance: Annotated[
        float | None, typer.Option("--guidance", help="Classifier-free guidance scale; the recipe's by default.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the noise.")] = 0,
) -> None:
    """Sample a video from a trained checkpoint.

    Example: vidcurate generate out/train --prompt "Pan left. A bright scene" -o sample.mp4
    """
    import generator

    print(generator.generate(checkpoint, prompt, output, image=image, steps=steps, guidance=guidance, seed=seed))
