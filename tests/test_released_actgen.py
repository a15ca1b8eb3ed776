"""The benchmark beside the released ActGen generator; a stand-in has its interface here."""

import argparse
import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from activegen.diffusion.levels import Level
from activegen.guidance import During, MemoryBank, ReferencePull
from activegen.records import UserError
from activegen.tasks.networks import build
from benchmark_scripts import script

STAND_IN = """
import json
import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import torch.distributed as dist
from PIL import Image


class GuidedGen:
    def __init__(self, guidance_str, pretrained_model_name_or_path, dataset):
        folder = Path(pretrained_model_name_or_path)
        self.scheduler = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
        self.categories, self.model_input_size = ("airplane",) * 10, 32
        self.pipeline = SimpleNamespace(unet=SimpleNamespace(enable_gradient_checkpointing=None))
        self.guidance_str, self.dataset, self.mem_bank = guidance_str, dataset, {}

    def __call__(self, images, labels, model):
        import nvidia_smi
        nvidia_smi.nvmlInit()
        handle = nvidia_smi.nvmlDeviceGetHandleByIndex(0)
        nvidia_smi.nvmlDeviceGetUtilizationRates(handle).gpu
        nvidia_smi.nvmlDeviceGetMemoryInfo(handle).used / 1024
        print("a loss")
        num_inference_steps = 40
        guidance_scale = 7.5
        height = width = 512 # pixels
        reference = (512,512)
        attention = int(np.ceil(512 / 32)), int(np.ceil(512 / 32))
        mask = torch.full((16, 16), 1).cuda()
        on_latents = (64, 64)
        expanded = mask.unsqueeze(0).expand(4, *mask.shape)
        guided = 0
        for i in range(num_inference_steps):
            if i < 10:
                guided += 1
        seen = {
            "steps": num_inference_steps, "cfg_scale": guidance_scale, "guided": guided,
            "half": self.guidance_str, "pixels": [height, *reference], "latents": on_latents,
            "channels": len(expanded), "attention": [*attention, *mask.shape],
            "scaling": 1 / (1 / 0.18215 * 1), "device": [mask.device.type, 'cuda'],
            "dtype": str(torch.float16), "rank": dist.get_rank(), "dataset": self.dataset,
            "label": labels.tolist(), "bank": [list(z.shape) for z in self.mem_bank[0]],
            "plain": random.random() < self.rand_gen_ratio,
            "adversarial": random.random() > self.rand_gen_ratio + 0.5,
            "levels": self.scheduler["beta_schedule"], "classes": model.module.fc.out_features,
        }
        with open(Path(__file__).parent / "seen", "a") as file:
            file.write(json.dumps(seen) + chr(10))
        return [Image.new("RGB", (width, height)) for _ in images]
"""
BANK = MemoryBank.of([(0, torch.zeros(4, 8, 8))])
ASKED = {"size": "toy", "batch": 2, "steps": 5, "repetitions": 1, "device": "cpu"}


benchmark = script("released_actgen")


@pytest.fixture(scope="module")
def worker(benchmark):
    return sys.modules["released_actgen_worker"]


@pytest.fixture(scope="module")
def checkout(worker, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("checkout")
    file = folder / worker.GENERATOR
    file.parent.mkdir(parents=True)
    file.write_text(STAND_IN)
    for package in (file.parent, file.parent.parent):
        (package / "__init__.py").touch()
    return folder


@pytest.fixture(scope="module")
def result(benchmark, checkout):
    return benchmark.measure(options(checkout=checkout))


@pytest.fixture
def settings(worker):
    """Of the released code."""
    return worker.Settings(
        steps=40,
        pixels=512,
        latents=64,
        channels=4,
        scaling=0.18215,
        attention=16,
        dataset="imagenet",
        label=0,
        bank=64,
        device="cuda",
        dtype="float16",
        seed=0,
    )


def options(**words) -> argparse.Namespace:
    return argparse.Namespace(**ASKED | {"python": sys.executable} | words)


def test_both_are_given_the_same(result, checkout: Path, worker) -> None:
    lines = (checkout / worker.GENERATOR.parent / "seen").read_text().splitlines()
    ways = [json.loads(line) for line in lines]
    assert [way.pop("adversarial") for way in ways] == [False, True] * (1 + ASKED["repetitions"])
    assert all(way == ways[0] for way in ways)
    of = result["settings"]
    assert ways[0] == {
        "steps": ASKED["steps"],
        "cfg_scale": of["cfg_scale"],
        "guided": 2,  # of 5, those before a quarter
        "half": 0.3125 * ASKED["steps"],
        "pixels": [of["pixels"]] * 3,
        "latents": [of["latents"]] * 2,
        "channels": of["channels"],
        "attention": [of["attention"]] * 4,
        "scaling": pytest.approx(of["scaling"]),
        "device": [of["device"]] * 2,
        "dtype": f"torch.{of['dtype']}",
        "rank": 1,
        "dataset": of["dataset"],
        "label": [of["label"]] * worker.AT_A_CALL,
        "bank": [[1, of["channels"], of["latents"], of["latents"]]] * of["bank"],
        "plain": False,
        "levels": "scaled_linear",
        "classes": 10,
    }


def test_what_is_written(result, benchmark) -> None:
    assert json.loads(json.dumps(result)) == result
    theirs, *ours = result["summary"].values()
    assert next(iter(result["summary"])) == benchmark.RELEASED and len(ours) == 3
    assert theirs["ratio"] == 1 and theirs["ratio_range"] == [1, 1]
    for row, of in result["summary"].items():
        assert of["images_per_second"] > 0 and of["peak_bytes"] is None, row
        for way in benchmark.WAYS:
            assert len(result["runs"][row][way]) == ASKED["repetitions"]
    text = benchmark.table_of(result)
    for told in (*result["equal"], *result["unequal"], *result["released"]["adaptations"]):
        assert told in text
    assert result["released"]["prompt"] == "a photo of airplane"


def test_ratios(benchmark) -> None:
    def runs(*seconds: tuple[float, float]):
        first, second = zip(*seconds, strict=True)
        return {
            way: [{"seconds": s, "processor_seconds": 2 * s, "peak_bytes": int(s)} for s in of]
            for way, of in zip(benchmark.WAYS, (first, second), strict=True)
        }

    rows = {
        benchmark.RELEASED: runs((8, 12), (16, 24), (2, 2)),
        "ours": runs((1, 1), (2, 2), (2, 2)),
    }
    found = benchmark.summary(rows)["ours"]
    assert found["ratio"] == 10 and found["ratio_range"] == [1, 10]
    assert found["images_per_second"] == 0.5 and found["processor_ratio"] == 10
    assert found["peak_bytes"] == 2


def test_the_released_size_needs_no_change(worker, settings) -> None:
    assert [edit for edit in worker.edits(settings) if edit.old != edit.new] == []
    assert worker.adapted(STAND_IN, settings) == STAND_IN
    told = worker.changes(replace(settings, pixels=64))
    assert [line for line in told if "64,64" in line and "512,512" in line]
    assert len(told) == 2 + len(worker.STAND_INS)


def test_another_size_changes_every_number(worker, settings) -> None:
    of = replace(settings, steps=5, pixels=96, latents=24, channels=8, scaling=0.5, attention=12)
    of = replace(of, device="cpu", dtype="float32")
    assert {edit.what for edit in worker.edits(of) if edit.old == edit.new} == {"CFG"}
    text = worker.adapted(STAND_IN, of)
    for told in ("steps = 5", "if i < 2", "width = 96", "(96,96)", "= 12, 12", "full((12, 12)"):
        assert told in text
    for told in ("(24, 24)", "expand(8,", "1 / 0.5 *", "torch.float32", ".to('cpu')", ", 'cpu']"):
        assert told in text


def test_another_text_is_refused(worker, settings) -> None:
    text = STAND_IN.replace("guidance_scale = 7.5", "guidance_scale = 15")
    with pytest.raises(worker.WrongCheckout, match=r"guidance_scale = 7.5.*f9f3aa7.*git clone"):
        worker.adapted(text, settings)


@pytest.mark.parametrize("steps", [5, 40, 50])
def test_guided_where_the_released_code_is(benchmark, settings, steps: int) -> None:
    of = replace(settings, steps=steps)
    pull, window = benchmark.as_released("contrastive", of, BANK, build("small", 10, 32))
    assert isinstance(pull, ReferencePull) and isinstance(window, During)
    for i in range(steps):
        gamma = 1 - 1 / (1 + math.exp(of.half - i))
        assert pull.weight(i / steps) == pytest.approx(gamma, abs=1e-6)
        level = Level(i, steps, torch.tensor(0), 0.5, 0.5, "epsilon")
        assert window.opens(level) == (i < of.guided)


def test_the_adversarial_way_asks_the_classifier(benchmark, settings) -> None:
    task = build("small", 10, 32)
    found = [benchmark.as_released(way, settings, BANK, task) for way in benchmark.WAYS]
    assert [len(window.inner.objectives) for _, window in found] == [1, 2]


@pytest.mark.parametrize("files", [[], ["README.md"]])
def test_no_checkout(benchmark, tmp_path: Path, files: list[str]) -> None:
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"guided_gen.py in .*git clone https://github.com/hunto"):
        benchmark.measure(options(checkout=tmp_path))


def test_an_unknown_size(benchmark, checkout: Path) -> None:
    with pytest.raises(UserError, match="unknown size 'huge'; choose one of: embedded"):
        benchmark.measure(options(checkout=checkout, size="huge"))


@pytest.mark.parametrize("python", ["no-such-python", "false"])
def test_a_generator_that_does_not_run(benchmark, checkout: Path, settings, python: str) -> None:
    with pytest.raises(UserError, match="python"):
        benchmark.Worker(python, checkout, Path("model"), settings)
