"""Sources of raw pairs."""
