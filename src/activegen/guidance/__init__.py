"""Ways of steering: what is wanted (objectives), how to get there (terms), where (regions), when.

A term is a frozen value in the list given to ``diffusion.sampling.sample``. To add one, write a
file here, list it in a table below and give it a row in ``docs/terms.md``: the contract tests run
over the tables.
"""

from activegen.guidance.ascend import Ascend
from activegen.guidance.inpaint import Inpaint
from activegen.guidance.memory_bank import MemoryBank
from activegen.guidance.objectives import (
    Adversarial,
    Informative,
    Inside,
    Objective,
    Repulsion,
    TargetWindow,
    Weighted,
)
from activegen.guidance.recurrence import Recurrence
from activegen.guidance.reference_pull import ReferencePull
from activegen.guidance.regions import (
    Attention,
    Background,
    Everywhere,
    Labelled,
    Object,
    Region,
)
from activegen.guidance.segment_consistency import SegmentConsistency
from activegen.guidance.teachers import TeacherAnchor, TeacherStudent
from activegen.guidance.windows import During, Every

TERMS: dict[str, type] = {
    "ascend": Ascend,
    "during": During,
    "every": Every,
    "inpaint": Inpaint,
    "recurrence": Recurrence,
    "reference_pull": ReferencePull,
}
OBJECTIVES: dict[str, type[Objective]] = {
    "adversarial": Adversarial,
    "during": During,
    "every": Every,
    "informative": Informative,
    "inside": Inside,
    "repulsion": Repulsion,
    "segment_consistency": SegmentConsistency,
    "target_window": TargetWindow,
    "teacher_anchor": TeacherAnchor,
    "teacher_student": TeacherStudent,
    "weighted": Weighted,
}
REGIONS: dict[str, type[Region]] = {
    "attention": Attention,
    "background": Background,
    "everywhere": Everywhere,
    "labelled": Labelled,
    "object": Object,
}

__all__ = [
    "OBJECTIVES",
    "REGIONS",
    "TERMS",
    "Adversarial",
    "Ascend",
    "Attention",
    "Background",
    "During",
    "Every",
    "Everywhere",
    "Informative",
    "Inpaint",
    "Inside",
    "Labelled",
    "MemoryBank",
    "Object",
    "Objective",
    "Recurrence",
    "ReferencePull",
    "Region",
    "Repulsion",
    "SegmentConsistency",
    "TargetWindow",
    "TeacherAnchor",
    "TeacherStudent",
    "Weighted",
]
