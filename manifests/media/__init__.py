"""Opening, decoding and scaling video with PyAV: one walk for all signals, exact frames for training."""
