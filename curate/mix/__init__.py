"""Mixing: kept pairs into shuffled training and validation shards."""
