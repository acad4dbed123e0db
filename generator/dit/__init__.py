"""Diffusion transformers: `model(x, t, text, **conditions) -> prediction`, latents (B, C, F, H, W).

`cogvideox`, `moviegen` (with `upsampler`), `stiv`, `easyanimate` (with `motion` and `masks`), one file each; `sizes`
names published and debug sizes, `costs` counts what they take, `conditions` holds known frames and kept tokens.
"""
