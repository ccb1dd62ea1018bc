"""Preference pairs for DPO."""
