"""`ip-adapter`: SDXL with an IP-Adapter that conditions every block alike (Ye et al. 2023).

It follows the reference more closely than `instantstyle`, its content included (leakage). Plus adapters,
which read the image encoder's hidden states, follow it more closely still.
"""

from __future__ import annotations

from stylear.curate.synthesize.diffusers.sdxl import SdxlSynthesizer


class IpAdapter(SdxlSynthesizer):
    """Draws prompts after references. Raises WeightsError if the weights do not fit."""

    def adapter_scale(self) -> float:
        scale: float = self.settings.scale
        return scale
