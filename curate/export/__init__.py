"""Export: a finished corpus in the formats of other tools. One module a format; `formats.py` lists them."""
