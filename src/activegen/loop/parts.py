"""What a recipe brings to the loop, and the learners that steer a round of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from activegen.data.scenes import Real
from activegen.diffusion.decoders import Decoder
from activegen.diffusion.model import DiffusionModel
from activegen.diffusion.sampling import Sampling, Term
from activegen.guidance.memory_bank import MemoryBank
from activegen.loop.executor import Executor, LocalExecutor
from activegen.loop.judging import Judge
from activegen.loop.mining import MiningSettings
from activegen.loop.settings import ArmSettings, LoopSettings
from activegen.loop.task import Task
from activegen.records import TaskModel
from activegen.tasks.learner import Learner


@dataclass(frozen=True)
class Learners:
    """What steers a round.

    Args:
        main: the learner.
        committee: it, those that mine, each trained on other images, and trained ones.
        bank: latents of earlier images.
    """

    main: TaskModel
    committee: tuple[TaskModel, ...]
    bank: MemoryBank


@dataclass(frozen=True)
class Parts:
    """What a recipe brings to the loop.

    Args:
        task: what a label is: ``Classifying`` or ``Segmenting``.
        train: all labelled real images.
        test: for reported figures alone.
        val: for figures that decide whether an arm goes on; None where nothing asks for them.
        learner: makes an untrained one; the same each time.
        model: loads the diffusion model, when the first round needs it.
        sampling: how it draws.
        steering: ways of drawing for the learners and the memory bank of a round.
        decoder: for the pictures that gradients see; None = the model's own.
        judge: of the arms that have one, and of those that have none.
        loop, mining: settings.
        seed: of splits, mining and proposals.
        executor: carries out the drawing.
        source: makes the same again in another process, where the executor draws there; it is
            pickled, and what it makes is kept as long as it stays equal. None draws with these.
        checkpoints: trained models that are in every committee.
        teacher: of the scores that ask one; it neither learns nor judges. None where there is none.
    """

    task: Task
    train: Real
    test: Real
    learner: Callable[[], Learner]
    model: Callable[[], DiffusionModel]
    sampling: Sampling
    steering: Callable[[Learners], Mapping[str, Sequence[Term]]]
    decoder: Callable[[DiffusionModel], Decoder | None]
    judge: Callable[[ArmSettings], Judge]
    loop: LoopSettings
    mining: MiningSettings
    seed: int = 0
    executor: Executor = field(default_factory=LocalExecutor)
    source: "Callable[[], Parts] | None" = None
    val: Real | None = None
    checkpoints: Callable[[], tuple[TaskModel, ...]] = tuple
    teacher: Callable[[], TaskModel | None] = lambda: None
