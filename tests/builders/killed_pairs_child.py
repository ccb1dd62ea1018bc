"""`stylear train pairs` that is killed when it is about to give a file its final name.

python killed_pairs_child.py SETTINGS.yaml NAME
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from stylear.train import pairs
from stylear.train.settings import PairsSettings, load_settings


def main() -> None:
    settings, name = load_settings(PairsSettings, Path(sys.argv[1]), {}), sys.argv[2]

    def watch(event: str, args: tuple[Any, ...]) -> None:
        if event == "os.rename" and Path(os.fsdecode(args[1])) == settings.out / name:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    pairs.SHARD_JOBS = 2
    pairs.run(settings)


if __name__ == "__main__":
    main()
