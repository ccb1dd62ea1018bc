"""The mini family: small models and a small corpus, so that everything runs offline."""
