"""Clips for people to look at: a balanced choice, a page and a table to mark them in, and the way back."""
