"""Explain: the history of one pair, from its source to its training shard or its rejection."""
