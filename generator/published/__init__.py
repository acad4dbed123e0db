"""Recipes with the published values of the four systems, one file each.

A value that no source gives is ours, and the recipe says so. They need published text encoders, curated data and a
cluster; none was run here to its end. Costs are estimates: see `generator.published.costs`. Those of transformers take
a VAE that is there already: give it with `--vae-from`.
"""

from __future__ import annotations

from generator.published.cogvideox import cogvideox_2b, cogvideox_5b
from generator.published.easyanimate import easyanimate_v3
from generator.published.moviegen import moviegen_30b, moviegen_t2i
from generator.published.stiv import stiv_m, stiv_xl
from generator.published.stiv_tasks import stiv_long, stiv_prediction, stiv_tup, stiv_views
from generator.published.vaes import VAES

__all__ = ["PUBLISHED", "VAES"]

PUBLISHED = {
    recipe.__name__: recipe
    for recipe in (
        cogvideox_2b,
        cogvideox_5b,
        moviegen_30b,
        moviegen_t2i,
        stiv_xl,
        stiv_m,
        stiv_prediction,
        stiv_tup,
        stiv_views,
        stiv_long,
        easyanimate_v3,
    )
}
