"""One training of any module: what it refuses to go on with, and what it leaves behind."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from safetensors import SafetensorError
from torch import Tensor, nn

from activegen.recipes import adaptation
from activegen.recipes.adaptation import Course, Training
from activegen.records import UserError
from activegen.tasks.learner import Diverged


class Line(nn.Module):
    """Its loss is that of a linear layer, to the power."""

    def __init__(self, weight: float = 0.5, power: float = 2.0):
        super().__init__()
        self.layer, self.power = nn.Linear(1, 1, bias=False), power
        nn.init.constant_(self.layer.weight, weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).float().pow(self.power).flatten()


@pytest.fixture
def forget() -> Iterator[Callable[[], None]]:
    """Lets accelerate read its environment again."""

    def forgotten() -> None:
        AcceleratorState._reset_state()
        GradientState._reset_state()

    yield forgotten
    forgotten()


def training(module: nn.Module, folder: Path, amp: str = "no") -> Training:
    course = Course(2, 0.1, save_every=1, amp=amp)
    return Training(module, course, folder / "state.safetensors", "ours", torch.device("cpu"))


def carry_out(of: Training) -> float:
    return of.carry_out(lambda *_: (torch.full((4, 1), 1.01),), lambda *_: None)


@pytest.mark.parametrize("amp", ["no", "bf16", "fp16"])
def test_a_gradient_that_is_not_finite_never_changes_the_weights(amp: str, tmp_path: Path) -> None:
    root = Line(0.0, 0.5)
    if amp == "fp16":  # with loss scaling such a step is left out
        assert carry_out(training(root, tmp_path, amp)) == 0
    else:
        with pytest.raises(Diverged, match=r"gradient's norm became .* in step 0.*adapt.learning"):
            carry_out(training(root, tmp_path, amp))
        assert not list(tmp_path.iterdir())
    assert root.layer.weight.item() == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [("ACCELERATE_MIXED_PRECISION", "bf16"), ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")],
)
def test_the_environment_of_accelerate_changes_nothing(
    name: str,
    value: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    forget: Callable[[], None],
) -> None:
    def moments(folder: Path) -> list[Tensor]:
        forget()
        ours = training(Line(), folder)
        carry_out(ours)
        return [x for of in ours.optimiser.state.values() for x in of.values()]

    plain = moments(tmp_path / "plain")
    monkeypatch.setenv(name, value)
    changed = moments(tmp_path / "changed")
    assert all(torch.equal(a, b) for a, b in zip(plain, changed, strict=True))


def test_a_full_disk_is_told_and_leaves_the_old_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = training(Line(), tmp_path)
    ours.save()
    before = ours.file.read_bytes()

    def full(_: object, path: Path, *__: object) -> None:
        path.write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(adaptation, "save_file", full)
    with pytest.raises(UserError, match=rf"{tmp_path}'.*No space left.*make room"):
        carry_out(ours)
    assert ours.file.read_bytes() == before and list(tmp_path.iterdir()) == [ours.file]
