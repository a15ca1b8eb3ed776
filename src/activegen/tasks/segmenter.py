"""Any network as a task model for the pixels of an image, which hands out its last features."""

import math
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from activegen.records import IGNORE, Images, Prediction, UserError
from activegen.tasks.task_network import TRY_SIZE, TaskNetwork, dry_run, listening, shape_of

LAST = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)  # layers that may make logits


class Segmenter(TaskNetwork):
    """A network that maps normalised images (b, 3, h, w) to logits (b, classes, h', w').

    Logits of another size than the image's (of half or quarter size, say) are resized bilinearly.
    Dropout and batch norm follow the mode (``train()``, ``eval()``) the model is in.

    Args:
        network: any module with one output channel per class.
        classes: number of classes, at most 255.
        size: (height, width) that images are resized to first; None leaves them as they are.
        mean: subtracted from each channel of the 0..1 image.
        std: what each channel is divided by after that.
        multiple: of pixels, that the network's sides must be: others are padded at the lower and
            right edges by repeating the last pixel, and their logits cropped.

    Raises:
        UserError: a dry run showed that the network cannot take such images, or does not give a map
            of logits for each class.
    """

    space = 2

    def __init__(
        self,
        network: nn.Module,
        classes: int,
        size: tuple[int, int] | None = None,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        multiple: int = 32,
    ):
        if classes > IGNORE:
            raise UserError(f"a mask has room for {IGNORE} classes; got {classes}")
        head = _tried(network, classes, size or TRY_SIZE, multiple)
        super().__init__(network, classes, size, mean, std, head)
        self.multiple = multiple

    def forward(self, images: Images) -> Float[Tensor, "b classes h w"]:
        """Logits of each pixel, for images in 0..1 of any size."""
        inside = self.prepared(images)
        height, width = inside.shape[-2:]
        padded = _padded(inside, _whole((height, width), self.multiple))
        logits = _resized(self.network(padded), padded.shape[-2:])
        return _resized(logits[..., :height, :width], images.shape[-2:])

    def predict(self, images: Images) -> Prediction:
        """Float32 logits (1, b, classes, h, w), and the inputs of the last layer (1, b, d, h', w').

        The last layer is linear in them: of a 1x1 convolution they are its inputs, of a wider one
        those of its whole window, as many times more. Differentiable in the images. Features are
        None where the network does not end in a convolution, but for resizing.
        """
        with listening(self.head) as heard:
            logits = self(images).float()[None]
        if not heard or not isinstance(self.head, nn.Conv2d):
            return Prediction(logits)
        height, width = self.size or images.shape[-2:]
        windows = _windows(self.head, heard[-1].float())
        rows, columns = _within((height, width), self.multiple, windows.shape[-2:])
        return Prediction(logits, windows[None, ..., :rows, :columns])


def _whole(size: tuple[int, int], multiple: int) -> tuple[int, int]:
    """The next larger size that the network takes."""
    height, width = (math.ceil(side / multiple) * multiple for side in size)
    return height, width


def _padded(
    images: Float[Tensor, "b 3 h w"], size: tuple[int, int]
) -> Float[Tensor, "b 3 height width"]:
    below, right = size[0] - images.shape[-2], size[1] - images.shape[-1]
    if not below and not right:
        return images
    return functional.pad(images, (0, right, 0, below), mode="replicate")


def _resized(logits: Tensor, size: tuple[int, ...]) -> Tensor:
    if logits.shape[-2:] == size:
        return logits
    return functional.interpolate(logits.float(), tuple(size), mode="bilinear", antialias=True)


def _within(size: tuple[int, int], multiple: int, features: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of the features that show the image and not its padding."""
    whole = _whole(size, multiple)
    rows, columns = (math.ceil(s * f / w) for s, f, w in zip(size, features, whole, strict=True))
    return rows, columns


def _windows(
    head: nn.Conv2d, inputs: Float[Tensor, "b c h w"]
) -> Float[Tensor, "b d rows columns"]:
    """What a convolution sees at each place: its weights times these are its outputs."""
    kernel, dilation, stride = head.kernel_size, head.dilation, head.stride
    if kernel == (1, 1) and stride == (1, 1) and head.padding in ((0, 0), "valid", "same"):
        return inputs
    edges = _edges(head)
    mode = "constant" if head.padding_mode == "zeros" else head.padding_mode
    inputs = functional.pad(inputs, edges, mode=mode)
    rows, columns = (
        (inputs.shape[2 + k] - dilation[k] * (kernel[k] - 1) - 1) // stride[k] + 1 for k in (0, 1)
    )
    windows = functional.unfold(inputs, kernel, dilation, stride=stride)
    return windows.unflatten(2, (rows, columns))


def _edges(head: nn.Conv2d) -> tuple[int, int, int, int]:
    """Left, right, above and below, that the convolution pads by."""
    if head.padding == "valid":
        return 0, 0, 0, 0
    if isinstance(head.padding, str):
        rows, columns = (d * (k - 1) for d, k in zip(head.dilation, head.kernel_size, strict=True))
        return columns // 2, columns - columns // 2, rows // 2, rows - rows // 2
    rows, columns = head.padding
    return columns, columns, rows, rows


def _tried(network: nn.Module, classes: int, size: tuple[int, int], multiple: int) -> str | None:
    """Name of the convolution that makes the logits, None without; complains of wrong outputs."""
    remedy = f"give the size that it was made for, and what its sides are multiples of ({multiple})"
    logits, called = dry_run(network, _whole(size, multiple), LAST, remedy)
    shape = shape_of(logits)
    if isinstance(shape, str) or len(shape) != 4 or shape[:2] != (2, classes):
        raise UserError(
            f"the network must map 2 images to logits of shape (2, {classes}, height, width), one "
            f"channel per class; got {shape}: change its outputs, or the number of classes"
        )
    name, last = called[-1] if called else ("", None)
    fits = isinstance(last, nn.Conv2d) and last.out_channels == classes and last.groups == 1
    return name if fits else None
