"""Families of models: what one family's checkpoints, tokens and pictures have that others' do not."""
