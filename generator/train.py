"""Training: from a manifest to a VAE, and from its latents to a system's text encoders and transformer.

What a run computes is a function of the recipe and the clips alone; see `generator.loop`.
"""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from generator import torch_needed  # noqa: F401  (raises the sentence that names the extra)

# isort: split
import torch

from generator import systems
from generator.boards import Boards
from generator.data import DataConfig, read_rows
from generator.dit.costs import Cost, cost
from generator.dit.sizes import BUILD
from generator.draws import Draws, seed_of
from generator.heldout import hold_out, judge_system, judge_vae
from generator.interop import export, load, weights_fingerprint
from generator.loop import Learn, Learnt, fit
from generator.lora import WORDS, Adapter
from generator.material import Material, spread
from generator.options import Options
from generator.parallel import World, plan, world
from generator.progress import Progress, listener
from generator.recipe import Recipe, Stage
from generator.recompute import compile_blocks, recompute
from generator.run import Run, forget
from generator.showing import draw_samples, show_reconstructions
from generator.stages import folder_of, started
from generator.systems.base import Batch, Packed, System
from generator.vae import sizes as vaes
from generator.vae.starting import calm, inflate
from generator.vae.training import VaeLearner
from manifests.ids import describe, fingerprint

_OPTIONS = Options()


def train(
    folder: str | os.PathLike[str],
    recipe: Recipe,
    out: str | os.PathLike[str],
    progress: Progress | None = None,
    device: str = "cpu",
    fresh: bool = False,
    vae_from: str | os.PathLike[str] | None = None,
    cache: str | os.PathLike[str] | None = None,
    options: Options = _OPTIONS,
    start: str | os.PathLike[str] | None = None,
) -> Path:
    """Trains what `recipe` describes on the sampled clips of the manifest in `folder`; goes on where it was stopped.

    out: gets `vae/`, `transformer/`, `text_encoder/`, `scheduler/` (diffusers layout) and `system.json`, `samples/`,
    `log.jsonl` (one line per logged step), `train.json` (what was trained on what, and how well), `checkpoints/` and
    `cache/`. progress: see `generator.progress`. fresh: forget an earlier run in `out` (decoded pixels are kept).
    vae_from: folder of a trained VAE, which is taken as it is instead of training one. cache: where decoded pixels and
    latents are kept instead of in `out`, so that several trainings share them. start: folder of a trained system whose
    weights the first stage starts from, as from those of a stage before it.

    Started by torchrun (or `generator.launch`), every process calls this and takes its part.

    Returns `out`. Raises ValueError when there is nothing to train on, when `out` holds a run of another recipe or
    other clips, when the loss or its gradient is no longer finite, or when the memory does not suffice.
    """
    with contextlib.ExitStack() as inside:
        inside.enter_context(torch.random.fork_rng())
        inside.enter_context(_threads(recipe.threads))
        here = inside.enter_context(world(device, options.shard, options.context, options.tensor))
        report = inside.enter_context(listener(progress if here.first else _nobody))
        return _train(folder, recipe, Path(out), report, here, fresh, vae_from, cache, options, start)


def _train(
    folder: str | os.PathLike[str],
    recipe: Recipe,
    out: Path,
    report: Progress,
    here: World,
    fresh: bool,
    vae_from: str | os.PathLike[str] | None,
    cache: str | os.PathLike[str] | None,
    options: Options,
    start: str | os.PathLike[str] | None,
) -> Path:
    check(recipe, here)
    if vae_from is None and not recipe.vae_stages:
        raise ValueError(f"recipe {recipe.name} trains no VAE; give a trained one with --vae-from FOLDER.")
    if recipe.goes_on and start is None:
        raise ValueError(f"recipe {recipe.name} goes on from a trained system; give its folder with --from FOLDER.")
    if start is not None and not recipe.stages:
        raise ValueError(f"recipe {recipe.name} trains a VAE alone, so there is nothing to go on with --from.")
    before = None if start is None else systems.load(start)
    with here.in_turn():
        if fresh and here.first:
            forget(out)
        rows, kept = read_rows(folder), Path(cache or out / "cache")
        configs = dict.fromkeys([recipe.data, *(stage.data or recipe.data for stage in recipe.stages)])
        material = {data: Material(rows, data, kept, recipe.loading, report, here.device) for data in configs}
    held = hold_out(material, recipe.held_out)
    clips = material[recipe.data]
    used = {(row.id, row.caption): row for data in configs for row in material[data].rows}
    taken = None if vae_from is None else _taken(vae_from, recipe)
    boards = Boards(out, options.tensorboard, options.wandb, describe(recipe)) if here.first else None
    given = "" if taken is None else weights_fingerprint(taken)
    run = Run(out, recipe, list(used.values()), report, given, here, options, boards, _weights(before))
    if not run.open(folder):
        return out

    vae = (taken or _seeded(recipe.seed, "vae", lambda: calm(vaes.build(recipe.vae)))).to(here.device)
    if taken is None:
        judge = judge_vae(vae, held[recipe.data], here)
        for coding in recipe.vae_stages:
            learner = _seeded(recipe.seed, coding.name, functools.partial(VaeLearner, vae, coding)).to(here.device)
            here.share(learner)
            how = coding.training
            feed = clips.videos(recipe.seed, how.batch, coding.images)
            if coding.inflate:
                inflate(vae)
            fit(coding.name, learner, learner.learn, feed, how, run, coding.only, judge)
    vae.requires_grad_(False)
    maker = weights_fingerprint(vae)
    named = f"latents-{maker}" if cache else "latents"
    with here.in_turn():
        latents = clips.encode(vae, maker, named)
    if taken is None:
        vae.config = dataclasses.replace(vae.config, scaling_factor=1 / spread(latents, clips.ids))
    if here.first:
        export(vae, out / "vae")
    models = {"vae": vae}
    if recipe.stages:
        system = _train_system(recipe, vae, lambda each: each.encode(vae, maker, named), material, held, run, before)
        if here.first:
            models |= systems.save(system, out)
            captions = {row.id: row.caption for row in material[recipe.shown].rows}
            draw_samples(vae, system, recipe, captions, out / "samples", report)
    if here.first:
        psnr = show_reconstructions(vae, clips.pixels, clips.ids, out / "samples" / "vae.png")
        run.close(_results(models, psnr))
    if boards is not None:
        boards.close()
    return out


def check(recipe: Recipe, here: World) -> None:
    """Raises ValueError where these processes cannot train this recipe."""
    if not here.parted:
        return
    if any(stage.lora for stage in recipe.stages):
        raise ValueError("a LoRA is small: train it without --shard and --tensor.")
    if any(stage.training.optimizer == "adafactor" for stage in recipe.stages):
        raise ValueError("adafactor wants whole weights: leave out --shard and --tensor, or use the optimizer adamw.")
    if here.tensor > 1:
        with torch.device("meta"):
            for stage in recipe.stages:
                config = (stage.system or recipe.system).dit
                plan(BUILD[type(config)](config), here.tensor)


def _train_system(
    recipe: Recipe,
    vae: Any,
    encode: Callable[[Material], object],
    material: Mapping[DataConfig, Material],
    held: Mapping[DataConfig, Material],
    run: Run,
    system: System | None,
) -> System:
    """All stages, one after the other. system: that the first goes on from, if any."""
    here, options = run.world, run.options
    for stage in recipe.stages:
        new = started(recipe, stage, system, run.out).to(here.device)
        new.use(vae)
        new.typical = material[recipe.shown].typical()
        data, how = stage.data or recipe.data, stage.training
        with here.in_turn():
            for some in (material[data], held[data]):
                if some.rows:
                    encode(some)
                    some.tell(new)
        adapter = _adapter(recipe.seed, stage, new.transformer)
        recompute(new.transformer, how.recompute)
        here.spread(new)
        if options.compile and new is not system:
            compile_blocks(new.transformer)
        system = new
        feed, only = material[data].batches(system, vae, recipe.seed, how.batch), WORDS if adapter else stage.only
        judge, show = judge_system(system, held[data], here, recipe.seed), _show(recipe, vae, system, material, run)
        fit(stage.name, system, diffusion(system, how.batch), feed, how, run, only, judge, show)
        recompute(system.transformer, "nothing")
        if adapter is not None:
            if here.first:
                adapter.write(run.out / "lora" / stage.name)
            adapter.merge()
        system = here.whole(system, (stage.system or recipe.system).build).to(here.device)
        if stage.name in recipe.started_from:
            if here.first:
                systems.save(system, folder_of(run.out, stage.name))
            here.wait()
    assert system is not None, "there is a stage"
    return system


def _show(
    recipe: Recipe, vae: Any, system: System, material: Mapping[DataConfig, Material], run: Run
) -> Callable[[int], None]:
    """What draws samples in the middle of a stage; every process helps where work is divided."""

    def show(step: int) -> None:
        if run.world.first or not run.world.alone:
            captions = {row.id: row.caption for row in material[recipe.shown].rows}
            folder = run.out / "samples" / f"step-{step:08d}"
            draw_samples(vae, system.eval(), recipe, captions, folder, _nobody, write=run.world.first)
            system.train()

    return show


def _adapter(seed: int, stage: Stage, transformer: torch.nn.Module) -> Adapter | None:
    settings = stage.lora
    return _seeded(seed, f"{stage.name} lora", lambda: Adapter(transformer, settings)) if settings else None


def _weights(system: System | None) -> str:
    """Fingerprint of all of them, "" of none."""
    return "" if system is None else fingerprint([weights_fingerprint(m) for m in (system.transformer, *system.towers)])


def _nobody(phase: str, done: int, total: int, record: Mapping[str, float | int | str]) -> None:
    pass


def _results(models: Mapping[str, torch.nn.Module], psnr: float) -> dict[str, Any]:
    return {
        "parameters": {name: sum(p.numel() for p in model.parameters()) for name, model in models.items()},
        "fingerprints": {name: weights_fingerprint(model) for name, model in models.items()},
        "vae_psnr_on_training_clips": psnr,
    }


def _taken(folder: str | os.PathLike[str], recipe: Recipe) -> Any:
    """The VAE in a folder. Raises ValueError where it is not of the recipe's making but for the scale of latents."""
    vae: Any = load(folder)
    if fingerprint(dataclasses.replace(vae.config, scaling_factor=1.0)) != fingerprint(
        dataclasses.replace(recipe.vae, scaling_factor=1.0)
    ):
        raise ValueError(f"{folder}: this VAE is not built as recipe {recipe.name} says; train one with that recipe.")
    return vae


def diffusion(system: System, world: int) -> Learn:
    """What a system learns from batches that are part of global ones of `world` samples."""
    steps = getattr(system.objective, "steps", 1)

    def learn(batch: Batch | Packed, draws: Draws, step: int) -> Learnt:
        losses = system.losses(batch, draws, batch.world or world)  # type: ignore[arg-type]
        return Learnt(losses.mean, losses.tokens, {}, losses.each, losses.times / steps, _flops(system, batch))

    return learn


def _flops(system: System, batch: Batch | Packed) -> float | None:
    """Operations of a step. None where what is counted is not what is done: tokens are masked, clips are packed, or
    only some weights are trained."""
    config: Any = getattr(system, "config", None)
    if isinstance(batch, Packed) or bool(getattr(config, "masked", 0)):
        return None
    if not all(weight.requires_grad for weight in system.transformer.parameters()):
        return None
    text = tuple(int(tower.config.length) for tower in system.towers)  # type: ignore[union-attr, arg-type]
    return _cost(config.dit, tuple(batch.latents.shape[3:]), text).training * float(len(batch.texts))


@functools.lru_cache(maxsize=256)
def _cost(config: Any, latents: tuple[int, int, int], text: tuple[int, ...]) -> Cost:
    return cost(config, latents, text)


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _seeded(seed: int, name: str, build: Callable[[], Any]) -> Any:
    torch.manual_seed(seed_of(seed, name))
    return build()
