"""Sampling: prompts and style references to pictures."""
