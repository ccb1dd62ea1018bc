"""`stylear demo`: the whole workflow offline."""
