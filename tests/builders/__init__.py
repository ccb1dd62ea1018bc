"""Builders: what tests share to make corpora, models, servers and child processes."""
