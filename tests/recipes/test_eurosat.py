"""The packaged recipe of EuroSAT on the real images, small."""

import os
from pathlib import Path

import pytest

from activegen.recipes import Run, load
from activegen.store import Store

REPOSITORY = Path(__file__).parents[2]
SMALL = [
    "data.train.per_class=6",
    "data.test.limit=20",
    "training.steps=60",
    "judge.steps=60",
    "judge.members=2",
    "proposal.budget=10",
    "sampling.num_steps=6",
    "loop.rounds=3",
    "loop.evaluate_every=1",
]


@pytest.mark.slow
def test_eurosat_from_start_to_figures(tmp_path: Path) -> None:
    data = Path(os.environ.get("ACTIVEGEN_DATA", REPOSITORY / ".." / "shared" / "data"))
    if not (data / "eurosat_rgb").is_dir():
        pytest.skip(f"there is no {data / 'eurosat_rgb'}; set ACTIVEGEN_DATA to the data folder")
    recipe = load("eurosat", [f"data.path={data / 'eurosat_rgb'}", *SMALL])
    result = Run(recipe, tmp_path).carry_out()
    for name, arm in result["arms"].items():
        assert arm["accuracy"] > 0.25, f"{name}: hardly better than a guess of ten classes"
        assert arm["steps"] == 60
    store = Store(str(tmp_path / "arms" / "active" / "store"))
    accepted = [sample for sample, _ in store.accepted(before_round=3)]
    assert len(accepted) == result["arms"]["active"]["images"] > 0
    for sample in accepted:
        assert sample.request.steering == "plain" or sample.request.reference
        assert "satellite photo" in sample.request.prompt
