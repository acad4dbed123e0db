"""EasyAnimate's third version (arXiv 2405.18991): noise and its variance are predicted; images guide as latents of a
mask and of the masked video beside the noisy ones."""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from generator.dit.easyanimate import EasyAnimateConfig, EasyAnimateTransformer
from generator.dit.masks import condition, mask_video, masked_video, random_mask
from generator.draws import Draws
from generator.objectives import LearnedVariance
from generator.samplers import denoiser, dpm_solver
from generator.systems.base import Batch, Dropping, Guided, Known, Said, Shown, System
from generator.texts import Text, tower

_DROPPING = Dropping(text=0.1)


@dataclass(frozen=True, slots=True)
class EasyAnimate:
    """masks: whether the model trains on videos of which parts are shown; else on text alone."""

    dit: EasyAnimateConfig
    text: Text
    dropping: Dropping = _DROPPING
    masks: bool = False

    def build(self) -> EasyAnimateSystem:
        return EasyAnimateSystem(self)

    def problems(self, latents: tuple[int, int, int], channels: int, batch: int) -> dict[str, object]:
        """Sentences about what does not fit to latents (T, h, w) of so many channels, each true where it is broken."""
        dit, (_, rows, columns) = self.dit, latents
        return {
            "dit.latent_channels must be vae.latent_channels, and out_channels twice as many": not (
                dit.latent_channels == channels and dit.out_channels == 2 * channels
            ),
            "dit.caption_width must be text.width": dit.caption_width != self.text.width,
            f"the latents, {rows} x {columns}, must be whole patches of dit.patch_size": (
                rows % dit.patch_size or columns % dit.patch_size
            ),
            "masks need dit.condition_channels of twice vae.latent_channels": (
                self.masks and dit.condition_channels != 2 * channels
            ),
        }


class EasyAnimateSystem(System):
    def __init__(self, config: EasyAnimate) -> None:
        super().__init__(EasyAnimateTransformer(config.dit), [tower(config.text)], config.dropping)
        self.config = config
        self.objective: LearnedVariance = LearnedVariance()

    @property
    def tasks(self) -> dict[str, int]:
        shown = ("image", "prediction", "interpolation", "upsampling") if self.config.masks else ()
        return dict.fromkeys(("text", *shown), 0)

    @property
    def sees_frames(self) -> bool:
        return True

    def times(self, draws: Draws, slots: Sequence[int], world: int) -> Tensor:
        return draws.each(lambda g: torch.randint(self.objective.steps, (1,), generator=g))

    def say(self, texts: Sequence[str], micro: Tensor) -> Said:
        heard = self.towers[0].embed(texts)  # type: ignore[operator]
        return {"text": heard.sequence, "mask": heard.mask}

    def known(self, batch: Batch, x0: Tensor, draws: Draws) -> Known | None:
        if not self.config.masks:
            return None
        video, shown = batch.video(), []
        for one, generator in zip(video, draws.generators, strict=True):
            mask = random_mask(one.shape[1], one.shape[2], one.shape[3], generator)
            shown.append(self._shown(one, mask.to(one), generator))
        nothing = torch.zeros(x0.shape[0], x0.shape[2], dtype=torch.bool, device=x0.device)
        return Shown(x0, nothing, torch.stack(shown))

    def see(self, video: Tensor, given: Tensor) -> Shown:
        mask = (~given).to(video).view(-1, 1, 1, 1).expand(-1, 1, *video.shape[2:])
        beside = self._shown(video, mask, None)[None]
        clean = beside[:, beside.shape[1] // 2 :]
        return Shown(clean, torch.zeros(1, clean.shape[2], dtype=torch.bool, device=clean.device), beside)

    @torch.no_grad()
    def _shown(self, video: Tensor, mask: Tensor, generator: torch.Generator | None) -> Tensor:
        of_mask, of_video = self.encode(torch.stack([mask_video(mask), masked_video(video, mask)])).unbind()
        return condition(of_mask, of_video, mask, generator)

    def guess(
        self, x: Tensor, t: Tensor, said: Said, known: Known | None, draws: Draws | None = None
    ) -> tuple[Tensor, Tensor | None]:
        beside = known.beside if isinstance(known, Shown) else None
        return self.transformer(x, t, **said, condition=beside), None

    def without(self, known: Known | None, x: Tensor, t: Tensor) -> Known | None:
        return known  # guidance is about the text alone

    def integrate(self, guided: Guided, noise: Tensor, steps: int, scale: float, known: Known | None) -> Tensor:
        return dpm_solver(denoiser(guided(scale), self.objective), noise, self.objective, steps)
