"""The trainer: supervised fine-tuning and preference optimisation on image tokens."""
