"""The data side: from sources to an audited corpus of (caption, image) pairs."""
