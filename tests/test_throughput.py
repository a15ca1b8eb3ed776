"""The benchmark of speed: at toy size all the way, and its page."""

import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmark_scripts import script

MODES = "C adversarial linear,A latents/decoder entropy linear,B masks default,lever half dropped"


throughput = script("throughput")


@pytest.fixture(scope="module")
def measured(throughput, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("numbers") / "embedded-cpu.json"
    words = ["--size", "toy", "--steps", "4", "--repetitions", "1", "--batches", "1"]
    words += ["--device", "cpu", "--dtype", "float32", "--micro-batch", "1"]
    throughput.main([*words, "--modes", MODES, "--json", str(file)])
    return file


def test_every_mode_is_timed_beside_the_pipeline(measured: Path):
    made = json.loads(measured.read_text())
    modes: dict[str, Any] = made["modes"]
    assert list(modes)[:2] == ["pipeline", "unguided"] and len(modes) == 6
    for of in modes.values():
        assert "failed" not in of and len(of["seconds"]) == 1 and of["seconds"][0] > 0
    assert made["agreement"] < 1e-5
    assert made["batches"].keys() == {"1"}
    settings = {"batch": 2, "steps": 4, "scheduler": "ddim", "dtype": "float32", "seeds": [0, 1]}
    assert made["settings"].items() >= settings.items()
    assert made["machine"]["versions"]["torch"] == torch.__version__.partition("+")[0]


def test_the_modes_do_what_their_names_say(measured: Path):
    made = json.loads(measured.read_text())
    modes, denoiser = made["modes"], made["flops"]["denoiser"]
    flops = {name: of["flops"] for name, of in modes.items()}
    plain = flops["unguided"]
    assert all(of["calls"] == 4 and of["finite"] == 1 for of in list(modes.values())[1:])
    assert 4 * denoiser + made["flops"]["decoder"] < plain <= flops["pipeline"]
    assert flops["A latents/decoder entropy linear"] > plain + 4 * 2 * made["flops"]["learner"]
    assert flops["C adversarial linear"] > plain + 0.5 * denoiser  # its backward
    assert flops["lever half dropped"] < plain - 0.4 * denoiser + made["flops"]["decoder"]


def test_masks_are_asked_of_a_segmenter(throughput):
    words = ["--size", "toy-controlnet", "--steps", "2", "--repetitions", "1", "--batches", ""]
    words += ["--modes", "recipe*", "--device", "cpu"]
    made = throughput.run(throughput.parsed(words))
    assert list(made["modes"]) == ["pipeline", "unguided", "recipe demo_segmentation guided"]
    assert made["batches"] == {} and made["agreement"] < 0.05


def test_memory_of_a_draw(throughput):
    def draw() -> Tensor:
        first = torch.ones(2**20)  # 4 MiB
        with torch.inference_mode():
            second = first + 1  # and 4
            del second
        raised = first.requires_grad_().exp()  # 8 still
        return torch.autograd.grad(raised.sum(), first)[0].sum()  # 12

    taken = throughput.taken(draw, torch.device("cpu"))
    assert taken == throughput.taken(draw, torch.device("cpu"))
    assert 3 * 2**22 <= taken < 3 * 2**22 + 2**10


def test_guidance_takes_memory_and_less_of_it_by_micro_batches(throughput):
    cpu, some = torch.device("cpu"), 4
    toy = throughput.SIZES["toy"]
    bench = throughput.Bench(toy, throughput.Sampling(2, 2.0, "ddim"), cpu, torch.float32, some)

    def memory(name: str, micro_batch: int) -> int:
        bench.modes[name] = replace(bench.modes[name], micro_batch=micro_batch)
        return throughput.taken(bench.draw(name, some), cpu)

    deep = "A latents/denoiser entropy linear"
    plain, whole, few = memory("unguided", 0), memory(deep, 0), memory(deep, 1)
    assert plain < few < whole
    assert plain == memory("unguided", 1)


def test_modes_take_turns(throughput):
    drawn: list[str] = []
    draws = {name: lambda name=name: drawn.append(name) for name in "abc"}
    seconds = throughput.in_turn(draws, 2, torch.device("cpu"))
    assert "".join(drawn) == "abccba" and all(len(of) == 2 for of in seconds.values())


def test_a_mode_that_nobody_knows_is_said(throughput):
    known = ["unguided", "A one", "A two"]
    assert throughput.chosen(known, "A*") == ["A one", "A two"]
    with pytest.raises(SystemExit, match="no mode 'B'; there are: unguided, A one, A two"):
        throughput.chosen(known, "unguided,B")


@pytest.mark.parametrize(
    ("size", "unet", "text"),
    [
        ("sd15", 859_520_964, 123_060_480),
        ("sd21", 865_910_724, 340_387_840),
        ("sdxl", 2_567_463_684, 123_060_480),
    ],
)
def test_published_sizes(
    throughput, monkeypatch: pytest.MonkeyPatch, size: str, unet: int, text: int
):
    models: ModuleType = throughput.models
    monkeypatch.setattr(models, "QUICK", "meta")  # without weights
    parts = models.SIZES[size].make()
    assert parts.unet.num_parameters() == unet
    assert parts.text_encoder.num_parameters() == text
    assert parts.vae.num_parameters() == 83_653_863
    if size == "sdxl":
        assert parts.text_encoder_2.num_parameters() == 694_659_840


def test_tables_stand_between_the_marks(throughput, measured: Path, tmp_path: Path):
    performance = throughput.performance
    page = tmp_path / "page.md"
    page.write_text(f"before\n{performance.BEGIN}\nold\n{performance.END}\nafter\n")
    performance.publish(page, measured.parent)
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    assert "| C adversarial linear |" in text and "Unguided over pipeline: " in text
    assert "### sd15, GPU\n\nnot yet measured (`make bench-gpu`)" in text
    assert "### embedded, CPU\n\nnot" not in text
    performance.publish(page, measured.parent)
    assert page.read_text() == text
    page.write_text("no marks")
    with pytest.raises(SystemExit, match="no place for figures"):
        performance.publish(page, measured.parent)


def test_figures_by_hand(throughput, measured: Path):
    made = json.loads(measured.read_text())
    modes = {
        "pipeline": {"seconds": [1, 2, 4], "flops": 10, "memory": 2**30},
        "unguided": {"seconds": [1, 2, 4], "beside": "pipeline", "flops": 9, "memory": 2**30},
        "A": {"seconds": [3, 3, 4], "beside": "unguided", "flops": 20, "memory": 2**31},
        "B": {"beside": "unguided", "failed": "out of memory"},
    }
    batches = {"1": {"pipeline": [1, 1], "unguided": [1.25, 1.25]}}
    batches["4"] = {"pipeline": [2, 2], "unguided": [2, 2]}
    text = throughput.performance.section(made | {"modes": modes, "batches": batches})
    row = "| A | 0.667 | 1.50 (1.00 to 3.00) | 1.50 (1.00 to 3.00) | unguided | 2.00 |"
    assert f"{row} 2.0 GiB | 2.00 |" in text
    assert "| failed: out of memory |" in text
    assert "Unguided over pipeline: 1.250 at batch 1, 1.000 at batch 4, the best" in text
    assert "Peak memory was not measured" not in text


def test_the_page_is_what_its_numbers_say(throughput):
    performance = throughput.performance
    assert performance.sections(performance.NUMBERS) in performance.PAGE.read_text()
