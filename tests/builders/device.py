"""The device on which tests run models: the CPU, or the one that STYLEAR_TEST_DEVICE names."""

from __future__ import annotations

import os

DEVICE = os.environ.get("STYLEAR_TEST_DEVICE", "cpu")
