"""Diffusion transformers: `model(x, t, text, **conditions) -> prediction`, latents (B, C, F, H, W)."""
