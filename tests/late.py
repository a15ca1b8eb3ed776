"""The colours of `colours`, with images that are drawn while the next round trains."""

from dataclasses import replace
from typing import Any

import colours
from activegen.diffusion.sampling import Sampling
from activegen.loop.parts import Parts
from activegen.loop.proposing import ProposalSettings
from activegen.loop.settings import LoopSettings


def parts(**changes: Any) -> Parts:
    """Two rounds generate three images each, in two steps; then two only train."""
    loop = LoopSettings(rounds=4, generate_until=0.5, batch=2, overlap=True)
    small = colours.parts(proposal=ProposalSettings(budget=3), sampling=Sampling(num_steps=2))
    return replace(small, **{"loop": loop, **changes})
