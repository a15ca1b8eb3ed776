"""Walk a step again: time for a change to become part of the picture."""

from dataclasses import dataclass

from activegen.diffusion.levels import SCHEDULERS, Level
from activegen.diffusion.sampling import Batch, Steering
from activegen.records import UserError

ONE_STEP = ("ddim", "ddpm", "euler", "euler_ancestral", "lcm")


@dataclass(frozen=True)
class Recurrence:
    """Each step several times: steer, step, noise again back to where the step began.

        again = alpha / alpha' * latents' + sqrt(sigma² - (alpha / alpha' * sigma')²) * noise

    with ' for the level that was reached. Bansal et al. (2023), Universal Guidance,
    https://arxiv.org/abs/2302.07121, Algorithm 1, whose k is our ``times``; Lugmayr et al. (2022),
    RePaint, https://arxiv.org/abs/2201.09865, do so for seams of inpainting. Every pass is paid in
    full, denoiser and gradient, and all terms of the step act in it. A pass adds a move and draws
    the earlier ones back towards what the model believes: with few steps and guidance in all of
    them, more passes of the same length of move may end lower. The noise is fresh and of the
    image's own generator. Only for solvers that remember no earlier step; an ancestral reference
    walks on with other noise than the image.

    Args:
        times: passes of a step, 1 = no recurrence; they used 10 for segmentation.

    Raises:
        UserError: fewer than one pass; at the start of a batch, a solver that remembers.
    """

    times: int

    def __post_init__(self):
        if self.times < 1:
            raise UserError(f"a step of {self.times} passes; give 1 or more")

    def begin(self, batch: Batch) -> Steering:
        """For one batch."""
        scheduler = type(batch.solver().scheduler).__name__
        if self.times > 1 and not walks_again(scheduler):
            raise UserError(
                f"{scheduler} remembers earlier steps, so a step cannot be walked again; choose "
                f"one of: {', '.join(ONE_STEP)}, or leave recurrence out"
            )
        return _Recurring(self.times)


def walks_again(scheduler: str) -> bool:
    """Whether a step of this class of scheduler remembers no earlier one."""
    return scheduler in {SCHEDULERS[name] for name in ONE_STEP}


class _Recurring(Steering):
    def __init__(self, times: int):
        self.times = times

    def active(self, level: Level) -> bool:
        return self.times > 1

    def passes(self, level: Level) -> int:
        return self.times
