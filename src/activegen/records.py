"""The values that pass between rooms: requests, samples, predictions, and the protocols they meet.

Class dimension first, then whatever space there is. A classifier is a segmenter without space; a
single model is a committee of one.
"""

import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, TypeVar, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

Images = Float[Tensor, "b 3 h w"]  # RGB, 0 to 1
Latents = Float[Tensor, "b c h_z w_z"]  # scaled as the diffusion model sees them
Logits = Float[Tensor, "members b classes *space"]
Features = Float[Tensor, "members b d *near"]  # inputs of the last linear layer, maybe smaller
Target = Int[Tensor, "b *space"]  # class ids; 255 is ignored in masks
Scores = Float[Tensor, " b"]  # one number per image, higher = more informative

IGNORE = 255

T = TypeVar("T")


class UserError(Exception):
    """Something the user can mend; the message says how. The command line prints it and exits 2."""


class UnknownWord(UserError):
    """A word that is in none of our tables; the message lists the words that are."""

    def __init__(self, kind: str, word: str, known: Iterable[str]):
        known = sorted(known)
        near = difflib.get_close_matches(word, known, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        super().__init__(f"unknown {kind} '{word}'; choose one of: {', '.join(known)}.{hint}")


def choose(table: Mapping[str, T], word: str, kind: str) -> T:
    """``table[word]``, or an :class:`UnknownWord` that lists the known ones.

    >>> choose({"entropy": 1}, "entropy", "score")
    1
    """
    if word not in table:
        raise UnknownWord(kind, word, table)
    return table[word]


def fingerprint(value: Any) -> str:
    """Sixteen hex digits that name a JSON-able value by its content.

    >>> fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Prediction:
    """What a task model says of a batch of images."""

    logits: Logits
    features: Features | None = None


@dataclass(frozen=True)
class Request:
    """What one image shall be. The same request gives the same image.

    Args:
        prompt: the whole text.
        word: the part of ``prompt`` that names the class; its attention is the class's map. ""
            where no map is wanted.
        target: class id; of a scene, the class that it is drawn for.
        seed: of all the randomness of this image.
        mask: id of the real image whose mask this image shall have; "" for a class alone.
        part: number of the object in that mask which is redrawn, from 1; 0 draws all of it.
        reference: id of the real image to steer towards; "" without.
        classes: ids of the classes in the prompt, where the mask is read out of the attention.
        words: the part of ``prompt`` that names each of them.
        round: when it was asked for, counted from 0.
        arm: which experiment asked for it.
        steering: which guidance draws it, a name of the round's table; "plain" is unguided.
        state: fingerprint of all that the round froze (task weights, memory bank, recipe).
    """

    prompt: str
    word: str
    target: int
    seed: int
    mask: str = ""
    part: int = 0
    reference: str = ""
    classes: tuple[int, ...] = ()
    words: tuple[str, ...] = ()
    round: int = 0
    arm: str = ""
    steering: str = "plain"
    state: str = ""

    @property
    def id(self) -> str:
        """Hash of the content."""
        return fingerprint(asdict(self))


@dataclass(frozen=True)
class Sample:
    """A request and what came of it.

    Args:
        request: what was asked for.
        image: 8-bit RGB as it is stored and trained on, PNG bytes.
        mask: class id of each pixel, 255 = ignored, grey PNG bytes; b"" for a class alone.
        reliability: of each pixel of the mask, 255 = certain, grey PNG bytes; b"" where all are.
        latents: the final latents as float16 bytes (the memory bank reads them), b"" without.
        attention: the class word's map as 8-bit PNG bytes, b"" without.
        uncertainty: the learner's entropy in each pixel, grey PNG bytes, 255 = the highest that
            there is; b"" for a class alone.
        scores: numbers by name; a score that was not computed is absent.
        made_by: model, revision and versions of what drew it.
    """

    request: Request
    image: bytes
    mask: bytes = b""
    reliability: bytes = b""
    latents: bytes = b""
    attention: bytes = b""
    uncertainty: bytes = b""
    scores: dict[str, float] = field(default_factory=dict)
    made_by: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """Whether a sample keeps its label, and if not why not.

    Args:
        id: of the request.
        accepted: train on it?
        reason: "" when accepted, else the name of the check that failed.
        scores: what the checks measured.
        ignored: pixels of the mask that shall not be learnt (255, else 0), grey PNG bytes; b"" for
            none.
    """

    id: str
    accepted: bool
    reason: str = ""
    scores: dict[str, float] = field(default_factory=dict)
    ignored: bytes = b""


@runtime_checkable
class TaskModel(Protocol):
    """The model the data is for. It resizes and normalises itself; nobody else ever normalises."""

    def predict(self, images: Images) -> Prediction:
        """Logits for RGB images in 0..1 of any size; differentiable in the images."""
        ...


@runtime_checkable
class Score(Protocol):
    """How informative an image is for the model that made the prediction."""

    def __call__(self, prediction: Prediction, target: Target) -> Scores:
        """One number per image, higher = more informative."""
        ...
