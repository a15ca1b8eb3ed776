"""A folder says which adapter it needs."""

import json
from pathlib import Path

import pytest

import tiny
from activegen.diffusion.families import family
from activegen.diffusion.stable_diffusion import StableDiffusion
from activegen.diffusion.stable_diffusion_xl import StableDiffusionXL
from activegen.records import UserError


def test_the_folder_says_the_family(tmp_path: Path):
    assert family(tiny.save(tiny.model(), tmp_path / "small")) is StableDiffusion
    assert family(tiny.save_xl(tiny.xl(), tmp_path / "large")) is StableDiffusionXL


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("StableDiffusionPipeline", StableDiffusion),
        ("StableDiffusionXLPipeline", StableDiffusionXL),
        ("StableDiffusionXLInpaintPipeline", StableDiffusionXL),
    ],
)
def test_the_pipelines_name_is_enough(tmp_path: Path, name: str, expected: type):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": name}))
    assert family(tmp_path) is expected


def test_a_second_text_encoder_is_enough(tmp_path: Path):
    assert family(tmp_path) is StableDiffusion
    (tmp_path / "text_encoder_2").mkdir()
    assert family(tmp_path) is StableDiffusionXL


def test_a_damaged_index_and_a_missing_folder_are_said(tmp_path: Path):
    with pytest.raises(UserError, match="no model at"):
        family(tmp_path / "nowhere")
    (tmp_path / "model_index.json").write_text("{")
    with pytest.raises(UserError, match=r"model_index\.json is damaged"):
        family(tmp_path)
