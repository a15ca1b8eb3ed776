"""Masks are read to the pixel, whatever kind of file holds them; what means nothing is named."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from activegen.data.images import UnreadableImage
from activegen.data.masks import Coding, coding_of, decode_mask
from activegen.records import IGNORE, UnknownWord, UserError
from masked import MASK, grey, held, palette, picture

NAMES = ("sky", "tree", "road")
PLAIN = coding_of(NAMES)[1]
RED, GREEN, BLUE = [255, 0, 0], [0, 255, 0], [0, 0, 255]
COLOURS = {"sky": BLUE, "tree": GREEN, "road": RED}


def raw_png(bits: int, kind: int, row: bytes, width: int) -> bytes:
    """A PNG of one row, of a kind that Pillow does not write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        check = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, 1, bits, kind, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def coloured(mask: np.ndarray = MASK) -> Image.Image:
    return Image.fromarray(np.array([BLUE, GREEN, RED], dtype=np.uint8)[mask])


def with_alpha(image: Image.Image) -> Image.Image:
    image.putalpha(Image.new("L", image.size, 7))
    return image


@pytest.mark.parametrize(
    "data",
    [
        grey(),
        palette(),
        grey(MASK.astype(np.uint16)),
        held(with_alpha(Image.fromarray(MASK))),
        held(Image.fromarray(MASK).convert("RGB")),
        held(Image.fromarray(MASK.astype(np.int32)), "TIFF"),
        held(Image.fromarray(MASK), "BMP"),
        held(Image.fromarray(MASK), "GIF"),
    ],
    ids=["grey", "palette", "16 bits", "alpha", "grey in RGB", "32 bits", "BMP", "GIF"],
)
def test_every_kind_of_mask_is_read_as_it_was_written(data: bytes) -> None:
    assert np.array_equal(decode_mask(data, PLAIN), MASK)


@pytest.mark.parametrize(
    ("bits", "row", "expected"),
    [(1, b"\x50", [0, 1, 0, 1]), (2, b"\x18", [0, 1, 2, 0]), (4, b"\x01\x20", [0, 1, 2, 0])],
)
def test_grey_of_few_bits_is_not_spread(bits: int, row: bytes, expected: list[int]) -> None:
    assert decode_mask(raw_png(bits, 0, row, 4), PLAIN).tolist() == [expected]


def test_numbers_above_a_byte() -> None:
    _, coding = coding_of(ids={1000: "sky", 40_000: "tree"}, ignore=[3])
    mask = np.array([[1000, 40_000], [3, 255]], dtype=np.uint16)
    assert decode_mask(grey(mask), coding).tolist() == [[0, 1], [IGNORE, IGNORE]]


def test_several_numbers_of_one_class() -> None:
    names, coding = coding_of(ids={0: "sky", "1": "tree", 2: "tree"})  # keys as JSON has them
    assert names == ("sky", "tree")
    assert np.array_equal(decode_mask(grey(), coding), MASK.clip(max=1))


def test_an_ignored_number_is_no_class() -> None:
    names, coding = coding_of(NAMES, ignore=[1])
    assert names == ("sky", "road")
    assert np.array_equal(decode_mask(grey(), coding), np.array([0, IGNORE, 1])[MASK])


def test_two_hundred_and_fifty_five_is_void_unless_it_is_named() -> None:
    mask = np.array([[0, 255]], dtype=np.uint8)
    assert decode_mask(grey(mask), PLAIN).tolist() == [[0, IGNORE]]
    _, coding = coding_of(ids={0: "sky", 255: "tree"})
    assert decode_mask(grey(mask), coding).tolist() == [[0, 1]]


@pytest.mark.parametrize(
    "data",
    [
        held(coloured()),
        held(with_alpha(coloured())),
        held(coloured().quantize(8)),
        held(coloured().quantize(8), transparency=b"\0\7\0"),
    ],
    ids=["RGB", "alpha", "palette", "palette with alpha"],
)
def test_colours(data: bytes) -> None:
    names, coding = coding_of(NAMES, colours=COLOURS)
    assert names == NAMES
    assert np.array_equal(decode_mask(data, coding), MASK)


def test_colours_name_the_classes_and_may_be_ignored() -> None:
    names, coding = coding_of(colours={"road": RED, "sky": BLUE}, ignore=[GREEN])
    assert names == ("road", "sky")
    found = decode_mask(held(coloured()), coding)
    assert np.array_equal(found, np.array([1, IGNORE, 0])[MASK])


def test_black_and_white_are_colours_too() -> None:
    _, coding = coding_of(colours={"sky": [0, 0, 0], "tree": [255, 255, 255]})
    mask = np.array([[0, 255]], dtype=np.uint8)
    assert decode_mask(grey(mask), coding).tolist() == [[0, 1]]


def test_a_palette_is_read_by_its_places_where_both_are_known() -> None:
    coding = Coding({0: 0, 1: 1, 2: 2}, {(0, 0, 255): 0, (0, 255, 0): 1, (255, 0, 0): 2})
    assert np.array_equal(decode_mask(palette(), coding), MASK)
    assert np.array_equal(decode_mask(held(coloured()), coding), MASK)


@pytest.mark.parametrize(
    ("data", "coding", "message"),
    [
        (grey(MASK + 1), PLAIN, r"^m has ids that are no class: 3; .* 0 to 2, 255: add its number"),
        (palette(MASK * 9), PLAIN, r"no class: 9, 18; the known are 0 to 2, 255"),
        (
            held(coloured()),
            coding_of(colours={"sky": BLUE, "tree": [1, 2, 3]})[1],
            r"m has colours that are no class: \[0, 255, 0\], \[255, 0, 0\]; .*\[0, 0, 255\], \[1,",
        ),
        (held(coloured()), PLAIN, "m is a picture in colours; .* option colours"),
        (picture(kind="JPEG"), PLAIN, "m is a JPEG, which blurs its ids; save masks as PNG"),
        (held(Image.new("F", (2, 2)), "TIFF"), PLAIN, "m is of kind F"),
        (raw_png(16, 4, b"\0\1\xff\xff", 1), PLAIN, "16 bits in each of several channels"),
        (
            grey(MASK.astype(np.uint16)),
            coding_of(colours=COLOURS)[1],
            "m has no colours but numbers",
        ),
    ],
)
def test_what_means_nothing_is_said(data: bytes, coding: Coding, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        decode_mask(data, coding, "m")
    assert not isinstance(raised.value, UnreadableImage)  # one cannot leave it out and go on


@pytest.mark.parametrize("data", [b"", b"no mask", grey()[:50]])
def test_what_cannot_be_read_is_named(data: bytes) -> None:
    with pytest.raises(UnreadableImage, match=r"^m cannot be read"):
        decode_mask(data, PLAIN, "m")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "no class names, .*; give classes"),
        ({"classes": ["sky", 7]}, "one that is no word"),
        ({"ids": {0: "sky", 1: False}}, "one that is no word"),
        ({"classes": "sky"}, r"classes is 'sky'; give it as \[sky, tree\]"),
        ({"ids": ["sky"]}, "ids is .*; give it as {0: sky"),
        ({"classes": NAMES, "ignore": 255}, "ignore is 255; give it as"),
        ({"ids": {0: "sky"}, "colours": {"sky": RED}}, "ids or colours"),
        ({"ids": {"x": "sky"}}, "'x' is no number of a pixel"),
        ({"ids": {-1: "sky"}}, "-1 is no number"),
        ({"ids": {0: "sky", 1: "tree"}, "ignore": [1]}, "1 is of a class and to ignore"),
        ({"colours": {"sky": RED, "tree": RED}}, "two classes have one colour"),
        ({"colours": {"sky": RED}, "ignore": [RED]}, "of a class and to ignore"),
        ({"colours": {"sky": [1, 2]}}, r"\[1, 2\] is no colour"),
        ({"colours": {"sky": [1, 2, 256]}}, "is no colour; give"),
        ({"colours": {"sky": RED}, "ignore": [3]}, "3 is no colour"),
        ({"classes": NAMES, "ignore": [RED]}, r"\[255, 0, 0\] is no number"),
    ],
)
def test_options_that_cannot_be_right(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        coding_of(**options)


def test_ids_of_an_unknown_class() -> None:
    with pytest.raises(UnknownWord, match=r"class of the masks 'treee'.*Did you mean 'tree'"):
        coding_of(NAMES, ids={0: "treee"})
