"""Memory: what looks at a whole corpus at once holds columns of it, not objects."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "memory.py"
BYTES_A_ROW = 1300  # 730 to 860 measured at these sizes; one object a pair took 1720 to 1900
FEW, MANY = 10_000, 60_000


def test_a_pair_more_costs_a_bounded_number_of_bytes(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--rows", str(FEW), str(MANY), "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "memory.json").read_text())
    growth = {stage: figures["bytes_a_row"] for stage, figures in result["stages"].items()}
    assert set(growth) == {"urls", "plan", "filter", "mix", "pairs", "report", "audit"}
    assert {stage: bytes_ for stage, bytes_ in growth.items() if bytes_ >= BYTES_A_ROW} == {}
    judged = result["stages"]["filter"]
    assert (judged["few"]["found"], judged["many"]["found"]) == (FEW, MANY)
