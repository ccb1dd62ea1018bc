"""Export: a finished corpus in the formats of other tools. `registry.py` lists them, one module each."""
