"""Preflight: what a run will need, checked before it writes or downloads anything, and its plan."""
