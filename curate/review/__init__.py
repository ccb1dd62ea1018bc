"""Review by people: keep or drop pairs, choose between two pictures, and count the answers."""
