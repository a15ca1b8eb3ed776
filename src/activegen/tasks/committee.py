"""Several task models as one: members side by side in the first dimension."""

import torch
from torch import nn

from activegen.records import Images, Prediction, TaskModel, UserError


class Committee(nn.Module):
    """Task models that are asked together; their disagreement is a score.

    Members may differ in what they learnt from (:func:`activegen.data.splits.bags` and ``folds``),
    in their seeds or architectures, or be snapshots: checkpoints of one training.

    Args:
        members: any task models of the same classes; a member may be a committee.

    Raises:
        UserError: it has no members.
    """

    def __init__(self, members: tuple[TaskModel, ...]):
        super().__init__()
        if not members:
            raise UserError("a committee needs at least one member")
        self.members = members
        # so that eval(), to() and parameters() reach them
        self.modules_of_members = nn.ModuleList(m for m in members if isinstance(m, nn.Module))

    def predict(self, images: Images) -> Prediction:
        """Everybody's logits (members, b, classes); features where all have them in one shape.

        Raises:
            UserError: members have different classes.
        """
        predictions = [member.predict(images) for member in self.members]
        classes = [prediction.logits.shape[2] for prediction in predictions]
        if len(set(classes)) > 1:
            raise UserError(
                f"the members of a committee have different numbers of classes: {classes}"
            )
        features = [p.features for p in predictions if p.features is not None]
        same = len(features) == len(predictions) and len({f.shape[1:] for f in features}) == 1
        logits = torch.cat([prediction.logits for prediction in predictions])
        return Prediction(logits, torch.cat(features) if same else None)
