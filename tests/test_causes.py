"""The benchmark that asks why generated images help no more: what is learnt from."""

from argparse import Namespace
from pathlib import Path

import pytest
import torch

import tiny
import toy
from activegen.recipes import Run, load, parse
from benchmark_scripts import script

pytestmark = pytest.mark.filterwarnings("ignore")  # other people's, on loading a model

causes = script("causes")


@pytest.fixture(scope="module")
def made(causes, tmp_path_factory: pytest.TempPathFactory):
    model = tiny.save(tiny.model(), tmp_path_factory.mktemp("model"))
    settings = toy.settings(
        model,
        training={"steps": 4, "batch_size": 8},
        proposal={"budget": 16},
        loop={"rounds": 2, "batch": 8},
        arms={"unguided": {"generate": "plain", "judge": False}},
    )
    folder = tmp_path_factory.mktemp("comparison") / "seed-0"
    Run(parse(settings), folder).carry_out()
    options = Namespace(split="val", test=1, judge_images=16, judge_steps=2)
    return causes.Causes(Run(load(str(folder / "recipe.yaml")), folder), "unguided", options)


def test_other_real_images_are_as_many_of_each_class_and_nobodys(made) -> None:
    more = made.more_real()
    assert more.labels.bincount().tolist() == [2] * 8 and more.synthetic.all()
    known = made.real.images.flatten(1)
    assert not any((known == image).all(1).any() for image in more.images.flatten(1))
    decoded = made.decoded(more)
    assert torch.equal(decoded.labels, more.labels)
    assert decoded.images.shape == more.images.shape and (decoded.images != more.images).any()


def test_what_a_judge_confirms_and_how_it_labels_the_rest(causes, made) -> None:
    pools = {name: pool() for name, (pool, _) in made.pools().items()}
    assert len(pools[causes.ALONE]) == 0 and len(pools[causes.AS_IS]) == 16
    seen = made.judged.predictions
    confirmed = pools["+ generated, confirmed"]
    right = seen == made.generated.labels
    assert torch.equal(confirmed.images, made.generated.images[right])
    relabelled = pools["+ generated, relabelled"]
    assert torch.equal(relabelled.labels, seen) and relabelled.synthetic.all()
    assert 0 <= made.figure(confirmed, 0.1) <= 1


def test_trained_seeds_are_kept(causes, made, tmp_path: Path, monkeypatch) -> None:
    comparison = made.run.folder.parent
    words = ["causes.py", str(comparison), "--seeds", "0", "--test", "1", "--judge-images", "16"]
    words += ["--judge-steps", "2", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", words)
    causes.main()
    written = (tmp_path / "causes.json").read_text()
    monkeypatch.setattr(causes.Causes, "figure", lambda *_: 1 / 0)
    causes.main()
    assert (tmp_path / "causes.json").read_text() == written
    monkeypatch.setattr("sys.argv", [*words, "--arm", "guided"])
    with pytest.raises(SystemExit, match="answers other questions"):
        causes.main()
