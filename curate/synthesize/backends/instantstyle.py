"""`instantstyle`: SDXL with an IP-Adapter that conditions the style block only (InstantStyle).

The paper's own synthesiser (Wang et al. 2024, as StyleAR uses it): the reference conditions the one
block of the UNet that decides style, so a prompt is drawn in its style without its content.
"""

from __future__ import annotations

import json
from typing import Any

from stylear.curate.synthesize.diffusers.sdxl import SdxlSynthesizer
from stylear.pair import Scalar


class InstantStyle(SdxlSynthesizer):
    """Draws prompts in the style of references. Raises WeightsError if the weights do not fit."""

    def adapter_scale(self) -> dict[str, dict[str, list[float]]]:
        """Blocks not listed get scale 0: up block 0 decides style, down block 2 layout."""
        scales = {"up": {"block_0": [0.0, self.settings.style_scale, 0.0]}}
        if self.settings.layout_scale:
            scales["down"] = {"block_2": [0.0, self.settings.layout_scale]}
        return scales

    def metadata(self) -> dict[str, Scalar]:
        scale: Any = self.adapter_scale()
        return {**super().metadata(), "scale": json.dumps(scale)}
