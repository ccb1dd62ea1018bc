"""Explain: what a corpus knows of one pair, from where it came to where it is, or why it is not."""
