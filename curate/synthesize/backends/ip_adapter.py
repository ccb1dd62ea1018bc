"""`ip-adapter`: SDXL with an IP-Adapter that speaks to every block alike (Ye et al. 2023).

Nearer to the reference than `instantstyle`, in what it shows too: its content leaks. Plus adapters,
which read the image encoder's hidden states, stay nearer still.
"""

from __future__ import annotations

from stylear.curate.synthesize.diffusers.sdxl import Sdxl


class IpAdapter(Sdxl):
    """Draws prompts after references. Raises WeightsError for parts that do not fit."""

    def scale(self) -> float:
        found: float = self.settings.scale
        return found
