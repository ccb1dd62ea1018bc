"""Shared parts of the synthesisers that transfer texture without weights."""
