"""Captions by models: a stage of its own after the decisions, for kept clips only."""
