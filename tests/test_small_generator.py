"""Pieces of a data set of masks, and a generator that is made of nothing but them."""

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from activegen.data.mask_parquet import read_mask_parquet
from activegen.data.prompts import Prompts
from activegen.diffusion.control import Control
from activegen.diffusion.stable_diffusion import StableDiffusion
from activegen.records import IGNORE, UserError
from benchmark_scripts import FOLDER, script
from masked import grey, held

CLASSES = ["Sky", "Road"]
COLOURS = np.array([[0, 80, 250], [90, 60, 30]], np.uint8)


pieces, small_generator = script("pieces"), script("small_generator")


@pytest.fixture(scope="module")
def scripts(pieces, small_generator):
    return pieces, small_generator


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of 96 x 128 pixels, sky above road; the second image has no class to the right."""
    folder = tmp_path_factory.mktemp("data")
    mask = np.zeros((96, 128), np.uint8)
    mask[40:] = 1
    image, right = held(Image.fromarray(COLOURS[mask])), mask.copy()
    right[:, 8:] = IGNORE
    table = pa.table({"image": [image, image], "mask": [grey(mask), grey(right)]})
    table = table.replace_schema_metadata({"classes": json.dumps(CLASSES)})
    for split in ("train", "val", "test"):
        pq.write_table(table, folder / f"{split}.parquet")
    return folder


def cut(scripts, folder: Path, out: Path) -> Path:
    real = read_mask_parquet(str(folder), "train")
    assert scripts[0].write(real, "train", 6, (48, 96), out) == 6  # none of the second image
    return out


def test_a_piece_has_its_part_of_the_mask(scripts, folder: Path, tmp_path: Path) -> None:
    pieces = read_mask_parquet(str(cut(scripts, folder, tmp_path)), "train")
    assert pieces.classes == tuple(CLASSES) and len(pieces) == 6
    shown = set()
    for index in range(6):
        image, mask = pieces.image(index), pieces.mask(index)
        assert image.shape == (3, 64, 64) and mask.shape == (64, 64)
        wanted = torch.from_numpy(COLOURS)[mask.long()].permute(2, 0, 1)
        far = (image.int() - wanted.int()).abs().amax(0) > 2
        assert far.float().mean() < 0.1  # but for the line between them
        shown.add(int((mask == 0).sum()))
    assert len(shown) > 3  # of many sizes and places


def test_captions_and_words_are_the_recipes(scripts, folder: Path, tmp_path: Path) -> None:
    words = {"Sky": ("the sky",), "Road": ("a road", "a street")}
    prompts, real = Prompts(("a photo of {word}",), words), read_mask_parquet(str(folder), "train")
    with pytest.raises(UserError, match=r"128 x 96 pixels.*pieces\.py"):
        scripts[1].pictures(real, prompts, frozenset())
    real = read_mask_parquet(str(cut(scripts, folder, tmp_path)), "train")
    made = scripts[1].pictures(real, prompts, frozenset([0]))
    assert made.classes == tuple(CLASSES) and made.images.shape == (6, 64, 64, 3)
    said = {caption for captions in made.captions for caption in captions}
    assert said == {"a photo of a road", "a photo of a street"}  # the sky is background


@pytest.mark.slow
def test_a_generator_comes_of_it(
    scripts, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, words = tmp_path / "generator", ["--autoencoder-images", "32", "--images", "32"]
    words += [
        "--start",
        "embedded",
        "--decoder-images",
        "0",
        "--device",
        "cpu",
        "--work",
        str(tmp_path / "work"),
    ]
    path = f"data.path={cut(scripts, folder, tmp_path / 'pieces')}"
    asked = ["small_generator", str(FOLDER / "camvid.yaml"), "--set", path, "--out", str(out)]
    words += ["--work", str(tmp_path / "work")]
    words += ["--set", "prompts.words={Sky: [the sky], Road: [a road]}"]
    monkeypatch.setattr(sys, "argv", [*asked, *words])
    scripts[1].main()
    net = Control.load(out / "controlnet")
    assert StableDiffusion.load(out, controls=[net]).size == (64, 64)
