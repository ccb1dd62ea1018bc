"""Evaluation: models measured with confidence intervals."""
