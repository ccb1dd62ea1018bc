"""The command line with a registry of its own, for tests that kill it: fetch_child.py JSON WORDS..."""

from __future__ import annotations

import json
import sys

from stylear.cli import main
from stylear.weights import registry

if __name__ == "__main__":
    models = [
        registry.Model(**{**fields, "files": tuple(registry.File(**f) for f in fields["files"])})
        for fields in json.loads(sys.argv[1])
    ]
    registry.MODELS.clear()
    registry.MODELS.update({model.name: model for model in models})
    sys.argv = ["stylear", *sys.argv[2:]]
    main()
