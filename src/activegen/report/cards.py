"""The samples that the page shows, with their pictures and what is known of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from activegen.data.palettes import Colour, Palette
from activegen.loop.annotating import ranks_among
from activegen.records import IGNORE, Request, Sample
from activegen.report.choosing import stratified
from activegen.report.facts import Arm, Entry
from activegen.report.pictures import (
    NO_CLASS,
    Picture,
    heat,
    marked,
    outlined,
    overlay,
    painted,
    picture,
)
from activegen.report.real import Reference
from activegen.report.words import NBSP, percent
from activegen.store import from_png

SHOWN = 48  # samples of each arm
SHOWN_SCENES = 24  # these have twice as many pictures
NO_PICTURE = "not finite"  # the one reason that leaves nothing to show
SHARES = {  # of a sample's numbers, by what they are called on the page
    "label_probability": "label probability",
    "label_p_value": "label p-value",
    "label_agreement": "label agreement",
    "ignored_share": "not learnt",
    "most_ignored": "not learnt of the worst class",
}
CALLED = {  # numbers that their name does not explain
    "presence": "peak of the class word's attention",
    "distance_leak": "distance to the nearest val or test image",
    "distance_copy": "distance to the nearest training image",
    "distance_repeated": "distance to the nearest earlier sample",
}


@dataclass(frozen=True)
class Frame:
    """A picture of a card; ``empty`` says why there is none, "" that there need not be any."""

    caption: str
    picture: Picture | None
    empty: str = ""


@dataclass(frozen=True)
class Card:
    """A sample as the page shows it; ``agrees`` is None where the learner said nothing."""

    request: Request
    target: str
    frames: list[Frame]
    labels: frozenset[int]
    predicted: str
    agrees: bool | None
    numbers: list[tuple[str, str]]
    outcome: str
    checked: list[tuple[str, str]]
    prompt: tuple[str, str, str]


@dataclass(frozen=True)
class Album:
    """The shown samples of an arm, by way of steering."""

    arm: Arm
    ways: dict[str, list[Card]]

    @property
    def cards(self) -> list[Card]:
        """All of them."""
        return [card for way in self.ways.values() for card in way]

    @property
    def labels(self) -> frozenset[int]:
        """The numbers in all masks; none where labels are classes."""
        return frozenset().union(*(card.labels for card in self.cards))


def album_of(arm: Arm, reference: Reference, among_all: bool = False) -> Album:
    """A choice of what was drawn.

    Args:
        arm: with a store.
        reference: the real image of an id.
        among_all: reliability is stored as it is, and shown as its rank among accepted images.
    """
    assert arm.store is not None and arm.entries is not None
    pictured = [entry for entry in arm.entries if entry.outcome != NO_PICTURE]
    judged = [entry for entry in pictured if entry.verdict is not None]
    waiting = {e.request.id for e in arm.entries if e.verdict is None}
    drawn = _samples(arm, waiting) if waiting else {}
    candidates = [e for e in arm.entries if e.request.id in drawn] + judged
    of_scenes = any(entry.request.mask or entry.request.classes for entry in candidates)
    chosen = stratified(candidates, SHOWN_SCENES if of_scenes else SHOWN)
    pictures = drawn | _samples(arm, {entry.request.id for entry in chosen})
    rank = ranks_among(arm.store.accepted()) if among_all else as_it_is
    ways: dict[str, list[Card]] = {}
    order = sorted(chosen, key=lambda e: (e.outcome != "accepted", e.outcome, e.request.target))
    for entry in order:
        if sample := pictures.get(entry.request.id):
            card = _card(entry, rank(sample), arm.classes, reference)
            ways.setdefault(entry.request.steering, []).append(card)
    shelves = {name: _needed(cards) for name, cards in ways.items()}
    return Album(arm, dict(sorted(shelves.items(), key=lambda way: way[0] != "plain")))


def as_it_is(sample: Sample) -> Sample:
    """The same."""
    return sample


def _needed(cards: Sequence[Card]) -> list[Card]:
    """Without the pictures that no card has or could have."""
    frames = [frame for card in cards for frame in card.frames]
    kept = {frame.caption for frame in frames if frame.picture or frame.empty}
    return [replace(c, frames=[f for f in c.frames if f.caption in kept]) for c in cards]


def _samples(arm: Arm, ids: set[str]) -> dict[str, Sample]:
    """Those of the ids that were drawn; reads only their rounds, and keeps only them."""
    assert arm.store is not None and arm.entries is not None
    rounds = sorted({e.request.round for e in arm.entries if e.request.id in ids})
    samples = (sample for k in rounds for sample in arm.store.round(k).samples())
    return {sample.request.id: sample for sample in samples if sample.request.id in ids}


def _card(entry: Entry, sample: Sample, classes: Sequence[str], reference: Reference) -> Card:
    request = entry.request
    predicted = sample.scores.get("predicted")
    id = None if predicted is None else int(predicted)
    known = id is not None and 0 <= id < len(classes)
    before, word, after = request.prompt.partition(request.word)
    of_scene = bool(sample.mask)
    frames = _of_scene(entry, sample, classes, reference) if of_scene else _of(sample, reference)
    return Card(
        request=request,
        target=classes[request.target],
        frames=frames,
        labels=frozenset(from_png(sample.mask).unique().tolist() if of_scene else ()),
        predicted=classes[id] if known and id is not None else f"class {id}",
        agrees=None if id is None else id == request.target,
        numbers=_measured(sample.scores),
        outcome=entry.outcome,
        checked=_measured(entry.verdict.scores if entry.verdict else {}),
        prompt=(before, word, after),
    )


def _of(sample: Sample, reference: Reference) -> list[Frame]:
    """The pictures of a sample with a class."""
    id, image = sample.request.reference, from_png(sample.image)
    real = reference(id) if id else None
    attention = overlay(image, from_png(sample.attention)) if sample.attention else None
    return [
        Frame("reference", picture(real) if real is not None else None, "not available" * bool(id)),
        Frame("attention", attention, "not stored"),
        Frame("generated", picture(image)),
    ]


def _of_scene(
    entry: Entry, sample: Sample, classes: Sequence[str], reference: Reference
) -> list[Frame]:
    """The pictures of a sample with a mask."""
    image, mask = from_png(sample.image), from_png(sample.mask)[0]
    id = sample.request.mask
    real = reference(id) if id else None
    colours = _colours(classes)
    doubted = entry.verdict.ignored if entry.verdict else b""
    ignored = from_png(doubted)[0] if doubted else None
    left_out = ignored is not None or bool((mask == IGNORE).any())
    uncertainty = heat(from_png(sample.uncertainty)[0]) if sample.uncertainty else None
    attention = overlay(image, from_png(sample.attention)) if sample.attention else None
    sure = heat(from_png(sample.reliability)[0]) if sample.reliability else None
    return [
        Frame("real", None if real is None else picture(real), "not available" * bool(id)),
        Frame("attention", attention),
        Frame("mask", painted(mask, colours, real)),
        Frame("generated", picture(image)),
        Frame("with its mask", outlined(image, mask, colours)),
        Frame("reliability", sure),
        Frame("uncertainty", uncertainty, "not stored" * bool(id)),
        Frame("not learnt", marked(image, mask, ignored) if left_out else None),
    ]


def _colours(classes: Sequence[str]) -> list[Colour]:
    return Palette.own(classes).of(classes)


def legend(albums: Sequence[Album]) -> list[tuple[str, Colour]]:
    """Name and colour of what the shown masks hold."""
    labels = frozenset().union(*(album.labels for album in albums))
    classes = albums[0].arm.classes if albums else ()
    named = [*zip(classes, _colours(classes), strict=True)]
    shown = [pair for label, pair in enumerate(named) if label in labels]
    return shown + [("no label", NO_CLASS)] * (IGNORE in labels)


def _measured(scores: Mapping[str, float]) -> list[tuple[str, str]]:
    """Names and numbers, those that the card does not show elsewhere."""
    units = {"entropy": "nats", "cross_entropy": "nats"}
    shown = []
    for name, value in scores.items():
        if name == "predicted" or (name == "skipped_gradients" and value == 0):
            continue
        if name in SHARES:
            shown.append((SHARES[name], percent(value)))
        else:
            unit = NBSP + units[name] if name in units else ""
            called = name.replace("_", " ").replace("cross entropy", "cross-entropy")
            shown.append((CALLED.get(name, called), f"{value:.3g}{unit}"))
    return shown
