"""Photographic measures of frames, and the bars around them."""
