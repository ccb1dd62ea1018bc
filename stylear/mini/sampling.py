"""How the mini decoders are sampled, in their measurements and in the demo: what looks best at this size."""

from __future__ import annotations

from typing import Any

SAMPLING: dict[str, Any] = {"guidance": 3.0, "top_k": 200, "temperature": 0.9}
STYLED_SAMPLING = SAMPLING | {"guidance": 5.0, "style_guidance": 3.0, "noise": 0.1}
