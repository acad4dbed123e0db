"""Variational autoencoders of video: `encode_moments(x) -> (mean, logvar)`, `decode(z) -> x`, x (B, C, F, H, W).

`cogvideox`, `magvit` (EasyAnimate V5), `slice_vae` (EasyAnimate V3), `tae` (Movie Gen), `image` (STIV, frame by frame);
`sizes` names published and debug sizes, `losses` what they are trained on. Each has `latent_shape(F, H, W)`, which
answers a size it cannot take with the nearest that it can, and `tiling`, the published tiles.
"""
