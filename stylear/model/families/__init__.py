"""Families of models: the checkpoints, tokens and pictures that are specific to one family."""
