"""Ways of steering: what is wanted (objectives), how to get there (terms), where (regions), when.

A term is a frozen value in the list given to ``diffusion.sampling.sample``. To add one, write a
file here, list it in a table below and give it a row in ``docs/terms.md``: the contract tests run
over the tables.
"""

from activegen.guidance.ascend import Ascend
from activegen.guidance.memory_bank import MemoryBank
from activegen.guidance.objectives import Adversarial, Informative, Objective, Repulsion, Weighted
from activegen.guidance.reference_pull import ReferencePull
from activegen.guidance.regions import Attention, Everywhere, Region
from activegen.guidance.windows import During, Every

TERMS: dict[str, type] = {
    "ascend": Ascend,
    "during": During,
    "every": Every,
    "reference_pull": ReferencePull,
}
OBJECTIVES: dict[str, type[Objective]] = {
    "adversarial": Adversarial,
    "during": During,
    "every": Every,
    "informative": Informative,
    "repulsion": Repulsion,
    "weighted": Weighted,
}
REGIONS: dict[str, type[Region]] = {"attention": Attention, "everywhere": Everywhere}

__all__ = [
    "OBJECTIVES",
    "REGIONS",
    "TERMS",
    "Adversarial",
    "Ascend",
    "Attention",
    "During",
    "Every",
    "Everywhere",
    "Informative",
    "MemoryBank",
    "Objective",
    "ReferencePull",
    "Region",
    "Repulsion",
    "Weighted",
]
