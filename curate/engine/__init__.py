"""Engines map a stage over the shards of a corpus."""
