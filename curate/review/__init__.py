"""Review by people: keep or drop pairs, prefer one of two pictures, and count what they said."""
