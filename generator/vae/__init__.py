"""3D variational autoencoders: `encode_moments(x) -> (mean, logvar)`, `decode(z) -> x`, video (B, C, F, H, W)."""
