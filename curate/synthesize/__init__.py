"""Synthesisers: a style reference and a prompt become stylized candidates."""
