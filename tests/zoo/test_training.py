"""What the trainings of the embedded generators share: states to go on from, and latents."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from activegen.zoo.architecture import TILES, autoencoder
from activegen.zoo.domains import Domain
from activegen.zoo.running import Run, whole
from activegen.zoo.training import encoded, known


def run(work: Path) -> Run:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    return Run("made", {"model": model}, work, images=80, batch=8, rate=0.1, device="cpu")


def learn(of: Run, until: int) -> None:
    for rng in of.steps():
        x = torch.randn(of.batch, 3, generator=rng)
        loss = (of.models["model"](x) - x[:, :2]).square().mean()
        of.update(loss, {"loss": loss.item()})
        if of.seen + of.batch == until:  # killed before it counts this step
            break


def test_a_training_that_was_stopped_ends_as_if_it_were_not(tmp_path: Path):
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    at_once = run(tmp_path / "whole")
    learn(at_once, 0)
    stopped = run(tmp_path / "stopped")
    learn(stopped, 40)
    stopped.seen, stopped.step = 40, 5
    stopped.save()
    again = run(tmp_path / "stopped")
    assert (again.seen, again.step) == (40, 5)
    learn(again, 0)
    ends = [of.averaged()["model"].state_dict() for of in (at_once, again)]
    for name, weights in ends[0].items():
        torch.testing.assert_close(ends[1][name], weights)
    assert not torch.equal(ends[0]["weight"], run(tmp_path).models["model"].state_dict()["weight"])


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path):
    file = tmp_path / "pictures.npz"
    with pytest.raises(KeyboardInterrupt), whole(file) as partial:
        partial.write_bytes(b"half")
        raise KeyboardInterrupt
    assert not file.exists()
    with whole(file) as partial:
        np.savez(partial, images=np.zeros(3))
    assert [found.name for found in tmp_path.glob("*.npz")].count("pictures.npz") == 1
    assert len(np.load(file)["images"]) == 3


def test_latents_are_of_one_encoder_and_its_pictures(tmp_path: Path):
    torch.manual_seed(0)
    vae = autoencoder(TILES).eval()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (3, 64, 64, 3), dtype=np.uint8)
    domain = Domain("tiles", images, [("a",)] * 3, ["a"] * 3, False)
    (first,) = encoded(vae, [domain], tmp_path, "cpu")
    name = known(vae, [domain])
    (file,) = tmp_path.glob("latents-*")
    made = file.stat().st_mtime_ns
    with torch.no_grad():
        vae.decoder.conv_out.weight.mul_(2)  # what is sharpened later
    assert known(vae, [domain]) == name
    (again,) = encoded(vae, [domain], tmp_path, "cpu")
    assert torch.equal(first, again) and file.stat().st_mtime_ns == made
    with torch.no_grad():
        vae.encoder.conv_in.weight.mul_(1.5)
    (other,) = encoded(vae, [domain], tmp_path, "cpu")
    assert known(vae, [domain]) != name and not torch.equal(first, other)
    more = Domain("tiles", images[:2], [("a",)] * 2, ["a"] * 2, False)
    assert known(vae, [more]) != known(vae, [domain])
