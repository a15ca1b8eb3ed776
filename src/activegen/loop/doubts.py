"""Wordings whose labels a judge mostly does not believe."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from activegen.loop.judging import HOPELESS, NOT_NEEDED
from activegen.records import Request, Verdict
from activegen.store import Store

LEAST = 10  # images of a wording, before a share of them says anything; ours
UNBELIEVED = ("label", "unclear")  # of finished pictures
DOUBTS = (*UNBELIEVED, HOPELESS)
WHY = (
    "they are drawn wrongly, or the judge does not know such images, if it has learnt from the "
    "labelled ones alone"
)


@dataclass(frozen=True)
class Doubted:
    """A wording.

    Args:
        word: of a class, as it stands in prompts.
        target: id of the class.
        refused: images whose label was not believed.
        asked: images in all.
    """

    word: str
    target: int
    refused: int
    asked: int

    def told(self, class_name: str) -> str:
        """Such as "41 of 42 of 'frozen lake' (lake)"."""
        of = f" ({class_name})" if class_name != self.word else ""
        return f"{self.refused} of {self.asked} of '{self.word}'{of}"


def doubted(judged: Iterable[tuple[Request, Verdict]]) -> list[Doubted]:
    """Wordings of which at least half of the images were refused for their label, the worst first.

    A judge that has learnt from the labelled images refuses what these lack, which may be just what
    generated ones should bring.
    """
    asked, refused = Counter[tuple[str, int]](), Counter[tuple[str, int]]()
    for request, verdict in judged:
        key = request.word, request.target
        asked[key] += verdict.reason != NOT_NEEDED
        refused[key] += verdict.reason in DOUBTS
    found = [
        Doubted(*key, refused[key], count)
        for key, count in asked.items()
        if count >= LEAST and 2 * refused[key] >= count
    ]
    return sorted(found, key=lambda of: (-of.refused / of.asked, of.word))


def judged(store: Store) -> Iterator[tuple[Request, Verdict]]:
    """All requests of a store that have verdicts, with these."""
    for number in store.rounds():
        for request, verdict in store.round(number).judged():
            if verdict is not None:
                yield request, verdict
