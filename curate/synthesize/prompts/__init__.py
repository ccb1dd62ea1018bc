"""Prompts: their sources, de-stylising, and quotas for each style."""
