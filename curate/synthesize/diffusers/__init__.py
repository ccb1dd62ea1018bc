"""Shared parts of the synthesisers that run a diffusers pipeline."""
