"""Jobs in processes of their own."""

from pathlib import Path

import pytest
import torch

from activegen.recipes.jobs import Job, check_devices, in_parallel
from activegen.recipes.progress import Event
from activegen.records import UserError
from side_by_side import fail, note


def jobs(folder: Path, *arms: str) -> list[Job]:
    return [Job({}, folder, 3, arm) for arm in arms]


def never() -> bool:
    return False


@pytest.mark.slow
def test_each_device_has_a_process_and_rounds_are_told(tmp_path: Path) -> None:
    told: list[Event] = []
    in_parallel(jobs(tmp_path, "a", "b", "c"), ["x", "y"], note, told.append, never)
    devices = {file.name.split("-")[1]: file.read_text() for file in tmp_path.iterdir()}
    assert {file.name[0] for file in tmp_path.iterdir()} == {"a", "b", "c"}
    assert len(set(devices.values())) == len(devices) == 2
    assert {event.phase for event in told} == {"round"}
    assert sorted(event.arm for event in told) == ["seed 3 a", "seed 3 b", "seed 3 c"]


@pytest.mark.slow
def test_what_can_be_mended_comes_back(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown arm 'b'; choose one of: a"):
        in_parallel(jobs(tmp_path, "b"), ["x"], fail, print, never)
    with pytest.raises(UserError, match="a process ended before its arm did"):
        in_parallel(jobs(tmp_path, "dies"), ["x"], fail, print, never)


def test_devices_are_looked_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_devices(["cuda", "cuda:1", "cuda:1", "cpu"])
    said = "--devices names 'cuda:9', but this machine has cuda:0, cuda:1"
    with pytest.raises(UserError, match=said):
        check_devices(["cuda:0", "cuda:9"])
    with pytest.raises(UserError, match="--devices 'gpu' is not usable here"):
        check_devices(["gpu"])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UserError, match="none of CUDA"):
        check_devices(["cuda"])


def test_nothing_begins_when_the_time_is_over(tmp_path: Path) -> None:
    in_parallel(jobs(tmp_path, "a"), ["x"], note, print, lambda: True)
    assert not list(tmp_path.iterdir())
