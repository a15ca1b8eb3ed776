"""Colours are those the ControlNets were trained on, in RGB."""

import hashlib
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest
import torch

from activegen.data.palettes import PALETTES, Palette, colours_of, paint, palette_of
from activegen.records import UnknownWord, UserError

KNOWN = {
    "ade20k": {
        "wall": (120, 120, 120),
        "building": (180, 120, 120),
        "sky": (6, 230, 230),
        "tree": (4, 200, 3),
        "person": (150, 5, 61),
        "chest of drawers": (6, 51, 255),
        "flag": (92, 0, 255),
    },
    "cityscapes": {"road": (128, 64, 128), "car": (0, 0, 142), "bicycle": (119, 11, 32)},
    "coco": {"person": (220, 20, 60), "tree": (107, 142, 35), "rug": (250, 141, 255)},
    "voc": {"background": (0, 0, 0), "person": (192, 128, 128), "tvmonitor": (0, 64, 128)},
}
HASHES = {  # number of classes, sum of all channels, sha256 of their bytes
    "ade20k": (150, 58427, "ce475c9151035eff"),
    "cityscapes": (19, 5964, "5af5a8d200c61cb3"),
    "coco": (133, 52021, "efcc320916d0acb3"),
}


@pytest.mark.parametrize("name", PALETTES)
def test_known_entries(name: str) -> None:
    colours = PALETTES[name].colours
    assert {known: colours[known] for known in KNOWN[name]} == KNOWN[name]
    assert all(0 <= channel <= 255 for colour in colours.values() for channel in colour)
    assert all(known == known.strip() and "  " not in known for known in colours)


@pytest.mark.parametrize("name", HASHES)
def test_no_entry_has_changed(name: str) -> None:
    flat = bytes(channel for colour in PALETTES[name].colours.values() for channel in colour)
    digest = hashlib.sha256(flat).hexdigest()[:16]
    assert (len(PALETTES[name].colours), sum(flat), digest) == HASHES[name]


@pytest.mark.parametrize("name", PALETTES)
def test_colours_are_unique(name: str) -> None:
    """But ADE20K's road and skyscraper, which really have one."""
    colours = PALETTES[name].colours
    counts = Counter(colours.values())
    shared = {known for known, colour in colours.items() if counts[colour] > 1}
    assert shared == ({"road", "skyscraper"} if name == "ade20k" else set())


def test_voc_has_21_colours() -> None:
    """The twenty after the background are the colour map's own, checked against its PNG files."""
    assert [sum(colour) for colour in PALETTES["voc"].colours.values()] == [
        0, 128, 128, 256, 128, 256, 256, 384, 64, 192, 192, 320, 192, 320, 320, 448, 64, 192, 192,
        320, 192,
    ]  # fmt: skip


def test_painted_in_rgb_and_ignored_is_black() -> None:
    mask = torch.tensor([[0, 1, 2], [255, 2, 0]], dtype=torch.uint8)
    ontology = {"forest": "tree", "heaven": "sky"}
    painted = paint(mask, ["forest", "wall", "heaven"], PALETTES["ade20k"], ontology)
    assert painted.shape == (3, 2, 3) and painted.dtype == torch.float32
    expected = [
        [(4, 200, 3), (120, 120, 120), (6, 230, 230)],
        [(0, 0, 0), (6, 230, 230), (4, 200, 3)],
    ]
    assert (painted.permute(1, 2, 0) * 255).round().int().tolist() == [
        [list(colour) for colour in row] for row in expected
    ]
    assert painted[0, 1, 1] < painted[2, 1, 1]  # the sky is blue


@pytest.mark.parametrize("kind", [torch.uint8, torch.int16, torch.int64])
def test_masks_of_any_integers(kind: torch.dtype) -> None:
    mask = torch.tensor([[1, 255]], dtype=torch.int64).to(kind)
    painted = paint(mask, ["field", "river"], Palette.own(["field", "river"]))
    assert painted[:, 0].tolist() == [[0.0, 0.0], [pytest.approx(128 / 255), 0.0], [0.0, 0.0]]


def test_a_class_without_a_colour_is_said() -> None:
    with pytest.raises(UserError, match=r"class 'oven door'.*screen door.*'oven door: "):
        paint(torch.zeros(1, 1, dtype=torch.long), ["wall", "oven door"], PALETTES["ade20k"])
    with pytest.raises(UserError, match=r"class 'wood'.*'trees'.*tree"):
        PALETTES["ade20k"].of(["wood"], {"wood": "trees"})
    with pytest.raises(UserError, match="ontology"):
        PALETTES["voc"].of(["zzz"])


def test_an_ontology_of_other_classes_is_said() -> None:
    with pytest.raises(UnknownWord, match=r"'forrest'.*Did you mean 'forest'"):
        PALETTES["ade20k"].of(["forest", "wall"], {"forrest": "tree"})


@pytest.mark.parametrize("id", [2, 254, -1])
def test_an_id_without_a_class_is_said(id: int) -> None:
    with pytest.raises(UserError, match=f"id {id}, and there are 2 classes"):
        paint(torch.tensor([[0, id]]), ["wall", "sky"], PALETTES["ade20k"])


@pytest.mark.parametrize(("count", "apart"), [(7, 128), (63, 64), (255, 32)])
def test_own_colours_are_far_apart_and_not_black(count: int, apart: int) -> None:
    names = [str(i) for i in range(count)]
    colours = [(0, 0, 0), *Palette.own(names).colours.values()]
    for one, other in combinations(colours, 2):
        assert max(abs(a - b) for a, b in zip(one, other, strict=True)) >= apart
    longer = Palette.own([*names, "another"]).colours
    assert [longer[name] for name in names] == colours[1:]


def test_colours_from_values_and_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text('{"sea": [0, 0, 255], "1": [1, 2, 3]}')
    told = colours_of({"sea": [0, 0, 255], 1: (1, 2, 3)}, "palette")
    assert told == colours_of(str(file), "palette") == {"sea": (0, 0, 255), "1": (1, 2, 3)}
    assert palette_of(told, ["sea"]).of(["sea"]) == [(0, 0, 255)]
    assert palette_of("own", ["sea"]) == Palette.own(["sea"])
    assert palette_of("voc", ["sea"]) == PALETTES["voc"]
    with pytest.raises(UserError, match="class 'wood' has no colour"):
        palette_of(told, ["wood"]).of(["sea", "wood"])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"sea": [0, 0, 256]}, r"palette: the colour of 'sea' is \[0, 0, 256\]"),
        ({"sea": [0, 0]}, "give .red, green, blue."),
        ({"sea": [0.5, 0, 0]}, "whole numbers"),
        ({"sea": "blue"}, "the colour of 'sea' is 'blue'"),
        ({}, "is no mapping of classes"),
        ([1, 2, 3], "is no mapping of classes"),
        ("/nowhere.json", "palette '/nowhere.json' cannot be read"),
    ],
)
def test_what_is_no_colours_is_said(given: object, said: str) -> None:
    with pytest.raises(UserError, match=said):
        colours_of(given, "palette")


def test_two_classes_of_one_colour_are_said() -> None:
    palette = Palette({"sea": (0, 0, 255), "lake": (0, 0, 255), "wood": (0, 255, 0)})
    palette.check_apart(["sea", "wood"])
    palette.check_apart(["pond", "sea"], {"pond": "sea"})  # meant to be alike
    with pytest.raises(UserError, match=r"'sea' and 'lake' have one colour, \[0, 0, 255\]"):
        palette.check_apart(["sea", "wood", "lake"])
