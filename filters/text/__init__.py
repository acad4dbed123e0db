"""Lettering in the picture: how much of it there is, what it says, watermarks."""
