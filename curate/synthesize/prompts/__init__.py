"""Prompts: where they come from, what is removed from them, how many each style gets."""
