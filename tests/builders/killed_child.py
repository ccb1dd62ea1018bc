"""A run or a retry that is killed when it is about to give a file its final name.

python killed_child.py run|retry RECIPE CORPUS NAME
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
    command, recipe = sys.argv[1], load_recipe(sys.argv[2])
    corpus, name = Path(sys.argv[3]), sys.argv[4]

    def watch(event: str, args: tuple[Any, ...]) -> None:
        if event == "os.rename" and Path(os.fsdecode(args[1])) == corpus / name:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    if command == "retry":
        runner.retry(recipe, corpus, ["429", "5xx"], workers=1)
    else:
        runner.run(recipe, corpus, workers=1)  # else a worker gives shards their names


if __name__ == "__main__":
    main()
