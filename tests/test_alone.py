"""One process at a time in a folder."""

import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

import colours
from activegen.loop.rounds import active_generation
from activegen.loop.settings import ArmSettings
from activegen.records import UserError
from activegen.store import alone

HOLDS = """
import sys, time
from pathlib import Path
from activegen.store.alone import alone
with alone(Path(sys.argv[1])):
    print("in", flush=True)
    time.sleep(600)
"""


def test_another_process_is_kept_out_until_it_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDS, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "in\n"
        with pytest.raises(UserError, match=r"another process is at work in .*run; wait"):
            alone(tmp_path / "run").__enter__()
        other.kill()
    with alone(tmp_path / "run"), alone(tmp_path / "other"):
        pass
    with alone(tmp_path / "run"):
        pass


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file; give a folder"):
        alone(tmp_path / "file").__enter__()


def test_a_folder_that_cannot_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"below' cannot be written to .*choose another"):
        alone(tmp_path / "file" / "below").__enter__()

    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(FileLock, "acquire", full)
    with pytest.raises(UserError, match="no space left"):
        alone(tmp_path).__enter__()


def test_without_locks_there_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(FileLock, "acquire", unknown)
    with pytest.warns(UserWarning, match="no locks"), alone(tmp_path):
        pass


def test_an_arm_is_carried_out_once_at_a_time(tmp_path: Path) -> None:
    parts, settings = colours.parts(), ArmSettings("none")
    first = active_generation(parts, "a", settings, tmp_path, "recipe")
    next(first)
    second = active_generation(parts, "a", settings, tmp_path, "recipe")
    with pytest.raises(UserError, match="another process"):
        next(second)
    rest = list(first)
    assert len(list(active_generation(parts, "a", settings, tmp_path, "recipe"))) == 1 + len(rest)
