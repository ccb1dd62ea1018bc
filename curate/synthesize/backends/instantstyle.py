"""`instantstyle`: SDXL with an IP-Adapter that speaks to the style block only (InstantStyle).

The paper's own synthesiser (Wang et al. 2024, as StyleAR uses it): a reference drives the one block
of the UNet that decides style, so a prompt is drawn in its style without its content.
"""

from __future__ import annotations

import json
from typing import Any

from stylear.curate.synthesize.diffusers.sdxl import Sdxl
from stylear.pair import Scalar


class InstantStyle(Sdxl):
    """Draws prompts in the style of references. Raises WeightsError for parts that do not fit."""

    def scale(self) -> dict[str, dict[str, list[float]]]:
        """Blocks left out hear nothing: up block 0 decides style, down block 2 layout."""
        scales = {"up": {"block_0": [0.0, self.settings.style_scale, 0.0]}}
        if self.settings.layout_scale:
            scales["down"] = {"block_2": [0.0, self.settings.layout_scale]}
        return scales

    def told(self) -> dict[str, Scalar]:
        scale: Any = self.scale()
        return {**super().told(), "scale": json.dumps(scale)}
