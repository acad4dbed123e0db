"""Training: from a manifest to a VAE, and from its latents to a text encoder and a DiT.

What a run computes is a function of the recipe and the clips alone. Every step draws its random numbers from a seed
made of (recipe seed, model, step), and the order of the clips is a pure function too, so a run that was stopped goes
on exactly: on a CPU, bit for bit.
"""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from generator import torch_needed  # noqa: F401  (raises the sentence that names the extra)

# isort: split
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generator import checkpoint as ckpt
from generator.data import TensorCache, batches, cache_latents, cache_pixels, order, pixel_batch, read_rows
from generator.dit.cogvideox import CogVideoXTransformer
from generator.interop import export, weights_fingerprint
from generator.objectives import Schedule, kl_divergence, uniform_timesteps
from generator.progress import Progress, listener
from generator.recipes import Recipe, Training
from generator.run import Run, forget
from generator.sample import sample_videos, to_pixels, write_mp4
from generator.text import HashedWordEncoder
from generator.vae.cogvideox import CogVideoXVae
from generator.vae.perceptual import Edges
from manifests.ids import fingerprint

_STILLS = 4  # frames per clip

Loss = Callable[[Any, int], tuple[Tensor, dict[str, float], int]]
"""(batch, step) -> loss, further numbers for the log, tokens in the batch"""


def train(
    folder: str | os.PathLike[str],
    recipe: Recipe,
    out: str | os.PathLike[str],
    progress: Progress | None = None,
    device: str = "cpu",
    fresh: bool = False,
) -> Path:
    """Trains what `recipe` describes on the sampled clips of the manifest in `folder`; goes on where it was stopped.

    out: gets `vae/`, `transformer/`, `text_encoder/` and `scheduler/` (diffusers layout), `samples/`, `log.jsonl` (one
    line per logged step), `train.json` (what was trained on what, and how well), `checkpoints/` and `cache/`.
    progress: see `generator.progress`. fresh: forget an earlier run in `out` (decoded pixels are kept).

    Returns `out`. Raises ValueError when there is nothing to train on, when `out` holds a run of another recipe or
    other clips, or when the loss or its gradient is no longer finite.
    """
    out = Path(out)
    if fresh:
        forget(out)
    with listener(progress) as report, torch.random.fork_rng(), _threads(recipe.threads):
        rows = read_rows(folder)
        made_by = f"settings {fingerprint(recipe.data)}"
        pixels = TensorCache(out / "cache" / f"pixels-{fingerprint(recipe.data)}", made_by, "pixels")
        rows = cache_pixels(rows, recipe.data, pixels, lambda done, total: report("decode", done, total, {}))
        run = Run(out, recipe, rows, report)
        if not run.open(folder):
            return out

        vae = _seeded(recipe.seed, "vae", lambda: CogVideoXVae(recipe.vae)).to(device)
        _fit(
            "vae", vae, vae_loss(vae, recipe), lambda ids: pixel_batch(pixels, ids).to(device), recipe.vae_training, run
        )

        latents = TensorCache(out / "cache" / "latents", f"VAE {weights_fingerprint(vae)}", "latents")
        cache_latents(vae, run.ids, pixels, latents, lambda done, total: report("encode", done, total, {}))
        vae.config = dataclasses.replace(vae.config, scaling_factor=1 / _spread(latents, run.ids))
        export(vae, out / "vae")

        transformer = _seeded(recipe.seed, "transformer", lambda: CogVideoXTransformer(recipe.dit))
        encoder = _seeded(recipe.seed, "text", lambda: HashedWordEncoder(recipe.text))
        pair = nn.ModuleDict({"transformer": transformer, "text_encoder": encoder}).to(device)
        schedule = Schedule(recipe.dit_loss.snr_shift)
        captions = {row.id: row.caption for row in rows}

        def moments_and_captions(ids: list[str]) -> tuple[Tensor, list[str]]:
            return torch.stack([latents[clip] for clip in ids]).to(device), [captions[clip] for clip in ids]

        loss = diffusion_loss(transformer, encoder, schedule, vae.config.scaling_factor, recipe)
        _fit("dit", pair, loss, moments_and_captions, recipe.dit_training, run)
        export(transformer, out / "transformer")
        export(encoder, out / "text_encoder")
        ckpt.export_schedule(schedule, out / "scheduler")

        psnr = _show_reconstructions(vae, pixels, run.ids, out / "samples" / "vae.png")
        _draw_samples(vae, transformer, encoder, schedule, recipe, captions, out / "samples", report)
        models = {"vae": vae, "transformer": transformer, "text_encoder": encoder}
        run.close(
            {
                "parameters": {name: sum(p.numel() for p in model.parameters()) for name, model in models.items()},
                "fingerprints": {name: weights_fingerprint(model) for name, model in models.items()},
                "vae_psnr_on_training_clips": psnr,
            }
        )
    return out


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _fit(
    name: str, model: nn.Module, loss_of: Loss, fetch: Callable[[list[str]], Any], how: Training, run: Run
) -> None:
    """Trains `model` in place and leaves it in evaluation mode with the weights to export."""
    optimizer = torch.optim.AdamW(model.parameters(), how.lr, how.betas, how.eps, how.weight_decay)
    average = {key: value.detach().clone() for key, value in model.named_parameters()} if how.ema else {}
    start = run.resume(name, model, optimizer, average)
    model.train()
    for step, ids in zip(range(start, how.steps), batches(run.ids, run.recipe.seed, how.batch, start), strict=False):
        began = time.perf_counter()
        torch.manual_seed(_seed(run.recipe.seed, name, step))
        batch = fetch(ids)
        fetched = time.perf_counter()

        lr = how.lr * learning_rate(step, how)
        for group in optimizer.param_groups:
            group["lr"] = lr
        loss, parts, tokens = loss_of(batch, step)
        value = loss.item()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), how.clip).item()
        # Before the weights change: after a last step with such a gradient, no loss would tell.
        for what, number in {"loss": value, "gradient norm": norm}.items():
            if not math.isfinite(number):
                raise ValueError(
                    f"the {name} {what} is {number} at step {step + 1}; lower the learning rate of the recipe (now "
                    f"{lr:.2g}) and train into another folder; {run.out} keeps the last good checkpoint."
                )
        optimizer.step()
        for key, parameter in model.named_parameters() if average else ():
            # The first steps count more, so that the average forgets the random start.
            average[key].lerp_(parameter.detach(), 1 - min(how.ema, (1 + step) / (10 + step)))

        seconds = time.perf_counter() - began
        record = {"step": step + 1, "model": name, "loss": value, **parts, "lr": lr, "grad_norm": norm}
        record |= {"samples_per_s": len(ids) / seconds, "tokens_per_s": tokens / seconds}
        record |= {"data_share": (fetched - began) / seconds}
        if (step + 1) % how.log_every == 0 or step in (0, how.steps - 1):
            run.log(record)
        if (step + 1) % how.checkpoint_every == 0 or step == how.steps - 1:
            run.save(name, step + 1, model, optimizer, average)
        run.report(name, step + 1, how.steps, record)
    model.load_state_dict(average, strict=False)
    model.eval()


def learning_rate(step: int, how: Training) -> float:
    """Share of the full rate at a step: linear warm-up, then a cosine down to 0.05."""
    if step < how.warmup:
        return (step + 1) / how.warmup
    done = (step - how.warmup) / max(how.steps - how.warmup, 1)
    return 0.05 + 0.95 * (1 + math.cos(math.pi * done)) / 2


def vae_loss(vae: CogVideoXVae, recipe: Recipe) -> Loss:
    """What a reconstruction is worth; see `recipes.VaeLoss`. Tokens are places of the latent."""
    weights, edges = recipe.vae_loss, Edges(scales=1)

    def loss(video: Tensor, step: int) -> tuple[Tensor, dict[str, float], int]:
        x = _stills(video) if step < weights.stills else _crop(video, weights.crop)
        mean, logvar = vae.encode_moments(x)
        y = vae.decode(mean + (0.5 * logvar).exp() * torch.randn_like(mean))
        l1 = (y - x).abs().mean()
        gradient = edges(y.flatten(1, 2), x.flatten(1, 2)).mean()
        square, kl = F.mse_loss(y, x), kl_divergence(mean, logvar)
        parts = {"l1": l1.item(), "square": square.item(), "gradient": gradient.item(), "kl": kl.item()}
        total = l1 + weights.square * square + weights.gradient * gradient + weights.kl * kl
        return total, parts, mean[:, 0].numel()

    return loss


def _stills(video: Tensor) -> Tensor:
    """A few random frames of each clip as videos of their own, (4 B, 3, 1, H, W)."""
    return video[:, :, torch.randperm(video.shape[2])[:_STILLS]].transpose(1, 2).flatten(0, 1).unsqueeze(2)


def _crop(video: Tensor, size: int) -> Tensor:
    top, left = (int(torch.randint(side - size + 1, ())) for side in video.shape[-2:])
    return video[..., top : top + size, left : left + size]


def diffusion_loss(
    transformer: CogVideoXTransformer, encoder: HashedWordEncoder, schedule: Schedule, scale: float, recipe: Recipe
) -> Loss:
    """Mean squared error on v, at explicitly uniform timesteps, some texts dropped. Tokens are text and video."""

    def loss(batch: tuple[Tensor, list[str]], step: int) -> tuple[Tensor, dict[str, float], int]:
        moments, captions = batch
        mean, logvar = moments.unbind(1)
        x0 = (mean + (0.5 * logvar).exp() * torch.randn_like(mean)) * scale
        noise, count = torch.randn_like(x0), len(captions)
        slots = torch.arange(count)
        t = uniform_timesteps(slots, count, recipe.dit_loss.groups, schedule.steps, torch.default_generator).to(
            x0.device
        )
        dropped = torch.rand(count) < recipe.dit_loss.text_dropout
        text = encoder(["" if drop else caption for drop, caption in zip(dropped, captions, strict=True)])
        v = transformer(schedule.noised(x0, noise, t), t, text)
        patch = recipe.dit.patch_size**2 * (recipe.dit.patch_size_t or 1)
        return F.mse_loss(v, schedule.velocity(x0, noise, t)), {}, x0[:, 0].numel() // patch + text[..., 0].numel()

    return loss


def _seed(*parts: object) -> int:
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=7).digest()
    return int.from_bytes(digest, "little")


def _seeded(seed: int, name: str, build: Callable[[], Any]) -> Any:
    torch.manual_seed(_seed(seed, name))
    return build()


def _spread(latents: TensorCache, ids: Sequence[str]) -> float:
    """Standard deviation of the latents of these clips, over all channels."""
    mean = torch.stack([latents[clip][0].double().mean() for clip in ids]).mean()
    squares = torch.stack([latents[clip][0].double().square() + latents[clip][1].double().exp() for clip in ids])
    return float((squares.mean() - mean**2).sqrt())


@torch.no_grad()
def _show_reconstructions(vae: CogVideoXVae, pixels: TensorCache, ids: Sequence[str], file: Path) -> float:
    """A picture of up to four clips, each above what the VAE makes of it. Returns the mean PSNR of up to 32, dB."""
    device = next(vae.parameters()).device
    shown, psnr = [], []
    for number, clip in enumerate(ids[:32]):
        x = pixel_batch(pixels, [clip]).to(device)
        y = vae.decode(vae.encode_moments(x)[0]).clamp(-1, 1)
        psnr.append(float(10 * torch.log10(4 / F.mse_loss(y, x))))
        if number < 4:
            shown += [np.hstack(list(to_pixels(video)[0, ::4])) for video in (x, y)]
    file.parent.mkdir(parents=True, exist_ok=True)
    strip = np.vstack(shown).repeat(2, axis=0).repeat(2, axis=1)
    if not cv2.imwrite(str(file), strip[..., ::-1]):
        raise OSError(f"{file}: could not be written")
    return float(np.mean(psnr))


def _draw_samples(
    vae: CogVideoXVae,
    transformer: CogVideoXTransformer,
    encoder: HashedWordEncoder,
    schedule: Schedule,
    recipe: Recipe,
    captions: dict[str, str],
    folder: Path,
    report: Progress,
) -> None:
    """Videos for the captions of a few clips, and which file is which caption."""
    drawn = dict.fromkeys(captions[clip] for clip in order(list(captions), recipe.seed, 0))
    prompts = list(drawn)[: recipe.samples]
    for number, prompt in enumerate(prompts):
        video = sample_videos(
            vae, transformer, encoder, schedule, [prompt], recipe.sample_steps, recipe.guidance, recipe.seed + number
        )[0]
        write_mp4(folder / f"{number}.mp4", video, recipe.data.fps)
        report("sample", number + 1, len(prompts), {})
    said = {f"{number}.mp4": prompt for number, prompt in enumerate(prompts)}
    (folder / "prompts.json").write_text(json.dumps(said, indent=1, ensure_ascii=False) + "\n")
