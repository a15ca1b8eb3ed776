"""Any file becomes uint8 RGB; what cannot be read is named before anything learns from the rest."""

import io
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from activegen.data import images as module
from activegen.data.images import (
    MAX_PIXELS,
    RealImages,
    UnreadableImage,
    check,
    decode,
    encoded,
    verify,
)
from activegen.records import UserError


def as_bytes(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def textured(seed: int = 0, side: int = 64) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))


def numbered(index: int) -> torch.Tensor:
    return torch.full((3, 2, 2), index, dtype=torch.uint8)


FIVE = RealImages("five", ("a", "b"), tuple("vwxyz"), (0, 1, 0, 1, 0), numbered)


def test_rgb_is_kept() -> None:
    picture = textured()
    np.testing.assert_array_equal(
        decode(as_bytes(picture)).permute(1, 2, 0).numpy(), np.array(picture)
    )


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        (Image.new("L", (4, 3), 77), (77, 77, 77)),
        (Image.new("1", (4, 3), 1), (255, 255, 255)),
        (Image.new("RGBA", (4, 3), (255, 0, 0, 0)), (255, 255, 255)),
        (Image.new("RGBA", (4, 3), (255, 0, 0, 255)), (255, 0, 0)),
        (Image.new("LA", (4, 3), (0, 51)), (204, 204, 204)),
        (Image.new("RGB", (4, 3), (9, 8, 7)).quantize(4), (9, 8, 7)),
        (Image.fromarray(np.full((3, 4), 40_000, np.uint16)), (155, 155, 155)),
    ],
    ids=["grey", "bits", "clear", "opaque", "grey with alpha", "palette", "16 bits"],
)
def test_every_kind_becomes_rgb(picture: Image.Image, expected: tuple[int, int, int]) -> None:
    image = decode(as_bytes(picture))
    assert image.shape == (3, 3, 4)
    assert tuple(image[:, 1, 1].tolist()) == expected
    assert (image == image[:, :1, :1]).all()


def test_a_clear_palette_entry_is_white() -> None:
    picture = Image.new("RGB", (4, 4), (9, 8, 7)).quantize(4)
    assert (decode(as_bytes(picture, transparency=picture.getpixel((0, 0)))) == 255).all()


def test_turned_cameras_are_turned_back() -> None:
    picture = Image.new("RGB", (4, 2), "black")
    picture.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # the top of the scene is on the right
    image = decode(as_bytes(picture, exif=exif))
    assert image.shape == (3, 4, 2)
    assert image[0].nonzero().tolist() == [[0, 1]]


def test_floating_point_is_refused() -> None:
    with pytest.raises(UnreadableImage, match=r"height\.tif holds floating-point"):
        decode(as_bytes(Image.new("F", (4, 4)), "TIFF"), "height.tif")


@pytest.mark.parametrize("side", [8_001, 9_500, 14_000, 60_000])
@pytest.mark.parametrize("look", [decode, verify])
def test_too_large_is_refused_by_its_header(side: int, look: Callable[..., object]) -> None:
    header = bytearray(as_bytes(Image.new("L", (1, 1)), "BMP"))
    header[18:26] = side.to_bytes(4, "little") * 2
    with pytest.raises(UnreadableImage, match=f"bomb is too large .*{MAX_PIXELS:,} pixels"):
        look(bytes(header), "bomb")


def test_formats_that_run_programs_are_not_opened() -> None:
    with pytest.raises(UnreadableImage, match="page"):
        decode(as_bytes(Image.new("RGB", (4, 4)), "EPS"), "page")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
def test_truncated_files_are_found(kind: str, tmp_path: Path) -> None:
    whole = as_bytes(textured(), kind)
    verify(whole)
    file = tmp_path / "half"
    file.write_bytes(whole[: len(whole) // 2])
    for look in (decode, verify):
        with pytest.raises(UnreadableImage, match=r"half cannot be read"):
            look(file)


def test_a_flipped_bit_of_a_png_is_found_without_decoding() -> None:
    data = bytearray(as_bytes(textured()))
    data[len(data) // 2] ^= 1
    with pytest.raises(UnreadableImage, match="flipped"):
        verify(bytes(data), "flipped")


@pytest.mark.parametrize("data", [b"", b"no image", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image_is_named(data: bytes) -> None:
    with pytest.raises(UnreadableImage, match=r"^row 3 cannot be read"):
        decode(data, "row 3")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for look in (decode, verify):
        with pytest.raises(UnreadableImage, match=r"gone\.png cannot be read"):
            look(tmp_path / "gone.png")


def test_subsets_keep_ids_labels_and_images_together() -> None:
    some = FIVE.subset([4, 1, -2]).subset([0, 2])
    assert len(some) == 2
    assert some.ids == ("z", "y")
    assert some.labels == (0, 1)
    assert some.classes == FIVE.classes
    assert [int(some.image(index)[0, 0, 0]) for index in range(2)] == [4, 3]
    assert some.by_class() == {0: [0], 1: [1]}
    assert some.index_of("y") == 1
    with pytest.raises(IndexError):
        some.image(2)
    with pytest.raises(UserError, match="five has no image 'v'"):
        some.index_of("v")


def test_classes_without_images_are_counted() -> None:
    assert FIVE.subset([0]).by_class() == {0: [0], 1: []}


def test_readers_travel_to_workers() -> None:
    sent = pickle.loads(pickle.dumps(FIVE.subset([3])))
    assert int(sent.image(0)[0, 0, 0]) == 3


@pytest.mark.parametrize(
    ("ids", "labels", "message"),
    [
        (("a", "a"), (0, 1), "there twice: a"),
        (("a", "b"), (0,), "2 images but 1 labels"),
        (("a", "b"), (0, 2), "label 2 has no class"),
        (("a", "b"), (0, -1), "label -1 has no class"),
    ],
)
def test_what_does_not_fit_together_is_said(
    ids: tuple[str, ...], labels: tuple[int, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        RealImages("set", ("x", "y"), ids, labels, numbered)


def half_broken(index: int) -> bytes:
    return b"broken" if index in (1, 4) else as_bytes(textured(index, 8))


def test_unreadable_images_are_named_and_left_out() -> None:
    images = encoded("set", ["a", "b"], list("vwxyz"), [0, 1, 0, 1, 0], half_broken)
    assert images.ids == ("v", "x", "y")
    assert images.labels == (0, 0, 1)
    assert [id for id, _ in images.skipped] == ["w", "z"]
    assert images.skipped[0][1].startswith("w cannot be read")
    assert torch.equal(images.image(2), decode(half_broken(3)))
    assert len(images.subset([0]).skipped) == 2


def test_strict_does_not_skip() -> None:
    with pytest.raises(UserError, match=r"2 of 5 images cannot be read: w .*; z .*strict=False"):
        encoded("set", ["a", "b"], list("vwxyz"), [0, 1, 0, 1, 0], half_broken, strict=True)


def test_a_class_that_lost_its_images_is_named() -> None:
    with pytest.raises(UserError, match="no readable image of class b"):
        encoded("set", ["a", "b"], list("vwx"), [0, 1, 0], half_broken)
    with pytest.raises(UserError, match="no readable image of class c"):
        check(RealImages("set", ("a", "b", "c"), FIVE.ids, FIVE.labels, numbered))


def test_large_sets_are_not_decoded_to_be_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    check(FIVE, verify=looked.append)
    assert looked == []
    monkeypatch.setattr(module, "FULL_CHECK", 4)
    check(FIVE, verify=looked.append)
    assert looked == [0, 1, 2, 3, 4]
