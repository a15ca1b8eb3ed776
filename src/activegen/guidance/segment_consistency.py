"""Against noise that only fools the model: the pixels of a segment shall be seen alike."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from activegen.diffusion.sampling import Estimate
from activegen.guidance.objectives import Objective
from activegen.records import TaskModel, UnknownWord, UserError
from activegen.scores import consensus, counted

Kind = Literal["mse", "kl"]


@dataclass(frozen=True)
class SegmentConsistency(Objective):
    """Minus the mean difference of two pixels of one segment, in what the task model says of them.

        mse:  mean_uv ||p_u - p_v||²  =  2 mean_u ||p_u - mean p||²
        kl:   mean_uv KL(p_u || p_v)  =  mean_u p_u · log p_u - (mean p) · (mean log p)

    A segment is all pixels of one class in the target; each counts by its size. Probabilities are
    the mean of the members'. The pairwise form was used against adversarial noise in the first
    author's earlier code for Kniesel et al. (2025), https://arxiv.org/abs/2503.09221; whether the
    paper has it is not known. Differs in that it takes time and memory of the pixels, not of their
    pairs.

    Args:
        task: the model whose predictions are compared.
        kind: of difference: of squares, 0 to 2, or of divergences, in nats.

    Raises:
        UnknownWord: of ``kind``.
        UserError: in a step of a batch whose targets are no masks.
    """

    task: TaskModel
    kind: Kind = "mse"

    def __post_init__(self):
        if self.kind not in get_args(Kind):
            raise UnknownWord("kind of difference", self.kind, get_args(Kind))

    def value(self, estimate: Estimate) -> Float[Tensor, " b"]:
        """0 where each segment is seen as one, below where not."""
        if estimate.target.ndim == 1:
            raise UserError("SegmentConsistency needs masks for targets; a class has no segments")
        log_p = consensus(estimate.prediction(self.task).logits).flatten(2).transpose(1, 2)
        kept = counted(estimate.target).flatten(1)
        present, number = estimate.target.flatten(1).unique(return_inverse=True)
        members = (F.one_hot(number, len(present)) * kept.unsqueeze(2)).to(log_p)
        p = log_p.exp()
        means = _means(p, members)
        if self.kind == "mse":
            away = (p - members @ means).square().sum(2)
            total = 2 * (away * kept).sum(1)
        else:
            own = ((p * log_p).sum(2) * kept).sum(1)
            across = (means * _means(log_p, members)).sum(2)
            total = own - (members.sum(1) * across).sum(1)
        return -total / kept.sum(1).clamp_min(1)


def _means(
    values: Float[Tensor, "b pixels classes"], members: Float[Tensor, "b pixels segments"]
) -> Float[Tensor, "b segments classes"]:
    sizes = members.sum(1).unsqueeze(2)
    return torch.einsum("bns,bnc->bsc", members, values) / sizes.clamp_min(1)
