"""Any network as a task model for whole images, which hands out its last features."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from activegen.records import Images, Prediction, UserError
from activegen.tasks.task_network import TRY_SIZE, TaskNetwork, dry_run, listening, shape_of
from activegen.tasks.task_network import modes_kept as modes_kept


class Classifier(TaskNetwork):
    """A network that maps normalised images (b, 3, h, w) to logits (b, classes), made a task model.

    Dropout and batch norm follow the mode (``train()``, ``eval()``) the model is in.

    Args:
        network: any module with one output per class.
        classes: number of classes.
        size: (height, width) that the network sees; None leaves images as they are.
        mean: subtracted from each channel of the 0..1 image.
        std: what each channel is divided by after that.

    Raises:
        UserError: a dry run showed that the network cannot take such images, or does not give
            one logit per class.
    """

    space = 0

    def __init__(
        self,
        network: nn.Module,
        classes: int,
        size: tuple[int, int] | None = None,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
    ):
        head = _tried(network, classes, size or TRY_SIZE)
        super().__init__(network, classes, size, mean, std, head)

    def forward(self, images: Images) -> Float[Tensor, "b classes"]:
        """Logits for images in 0..1 of any size."""
        return self.network(self.prepared(images))

    def predict(self, images: Images) -> Prediction:
        """Float32 logits (1, b, classes), and the inputs of the last linear layer (1, b, d).

        Differentiable in the images. Features are None where the network ends in no linear layer.
        """
        with listening(self.head) as heard:
            logits = self(images)
        features = heard[-1].float()[None] if heard else None
        return Prediction(logits.float()[None], features)


def _tried(network: nn.Module, classes: int, size: tuple[int, int]) -> str | None:
    """Name of the linear layer that makes the logits, None without; complains of wrong outputs."""
    logits, called = dry_run(network, size, (nn.Linear,))
    if shape_of(logits) != (2, classes):
        raise UserError(
            f"the network must map 2 images to logits of shape (2, {classes}), one per class; "
            f"got {shape_of(logits)}: change its number of outputs, or the number of classes"
        )
    return called[-1][0] if called and called[-1][1].out_features == classes else None
