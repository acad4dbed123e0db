"""How strongly a model follows its conditions: classifier-free guidance in its published forms.

A branch is a model with its conditions filled in, called as `branch(x, t) -> prediction` with t of shape (B,). Guidance
turns branches into one: for example

    joint(partial(model, text=text), partial(model, text=null), 7.5)

Sources: classifier-free guidance arXiv 2207.12598; growing weights CogVideoX (arXiv 2408.06072, appendix); joint and
separate image and text guidance, renormalisation: STIV (arXiv 2412.07730, section 2.4).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from generator.dit.conditions import replaced
from generator.objectives import FlowMatching

Branch = Callable[[Tensor, Tensor], Tensor]


def joint(conditional: Branch, unconditional: Branch, scale: float, renormalise: bool = False) -> Branch:
    """u + scale (c - u). With text and image in `conditional` and neither in the other it is STIV's JIT-CFG.

    renormalise: give the result the norm of c, sample by sample, which takes back the overshoot of large scales.
    """

    def guided(x: Tensor, t: Tensor) -> Tensor:
        c, u = conditional(x, t), unconditional(x, t)
        v = u + scale * (c - u)
        return renormalised(v, c) if renormalise else v

    return guided


def separate(
    both: Branch, image: Branch, unconditional: Branch, image_scale: float, text_scale: float, renormalise: bool = False
) -> Branch:
    """STIV's SIT-CFG, with a weight each for image and text: u + s_i (i - u) + s_t (both - i). Three passes."""

    def guided(x: Tensor, t: Tensor) -> Tensor:
        b, i, u = both(x, t), image(x, t), unconditional(x, t)
        v = u + image_scale * (i - u) + text_scale * (b - i)
        return renormalised(v, b) if renormalise else v

    return guided


def renormalised(guided: Tensor, conditional: Tensor) -> Tensor:
    """`guided` with the norm that `conditional` has, over each whole sample (B, ...)."""
    size, wanted = (torch.linalg.vector_norm(v.flatten(1), dim=1) for v in (guided, conditional))
    factor = wanted / size.clamp(min=torch.finfo(size.dtype).tiny)
    return guided * factor.view(-1, *(1,) * (guided.ndim - 1))


def known_clean(branch: Branch, clean: Tensor, known: Tensor) -> Branch:
    """The branch is shown the given frames as they are, at every step. clean, known: see `conditions.replaced`."""
    return lambda x, t: branch(replaced(x, clean, known), t)


def known_noised(branch: Branch, clean: Tensor, known: Tensor, noise: Tensor, flow: FlowMatching) -> Branch:
    """The branch does not get the given frames: they are noised to the time of the others. noise: like `clean`."""
    return lambda x, t: branch(replaced(x, flow.noised(clean, noise, t), known), t)


def dynamic_weight(step: int, steps: int, scale: float) -> float:
    """Weight that grows from 1 to 1 + scale over the sampling: 1 + scale (1 - cos(pi (i / N)^5)) / 2.

    i is the index of the step, as the formula intends.
    """
    return 1 + scale * (1 - math.cos(math.pi * (step / steps) ** 5)) / 2


def released_dynamic_weight(t: int, steps: int, scale: float) -> float:
    """What CogVideoX's released samplers compute instead: they put the training timestep where the index belongs.

    The weight then jumps about between 1 and 1 + scale; only for results that must equal theirs bit by bit.
    """
    return 1 + scale * (1 - math.cos(math.pi * ((steps - t) / steps) ** 5)) / 2
