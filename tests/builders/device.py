"""The device on which tests run models: the CPU, or the one that STYLEAR_TEST_DEVICE names."""

from __future__ import annotations

import os
from typing import Any

DEVICE = os.environ.get("STYLEAR_TEST_DEVICE", "cpu")
# settings of scorers and synthesisers, whose own precision on a GPU is half
ON_DEVICE: dict[str, Any] = {"device": DEVICE} | ({} if DEVICE == "cpu" else {"dtype": "float32"})
