"""A retry that is killed when it is about to give a file its final name.

python retry_child.py RECIPE CORPUS NAME
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from stylear.curate import run as runner
from stylear.curate.recipe import load_recipe


def main() -> None:
    recipe, corpus, name = load_recipe(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]

    def watch(event: str, args: tuple[Any, ...]) -> None:
        if event == "os.rename" and Path(os.fsdecode(args[1])) == corpus / name:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    runner.retry(recipe, corpus, ["429", "5xx"])


if __name__ == "__main__":
    main()
