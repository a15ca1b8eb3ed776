"""Runs that draw for masks: an own folder of odd sizes, guided and judged, whole and by object."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny
from activegen.guidance import Inpaint, MemoryBank
from activegen.loop.judging_masks import BelievedPixels
from activegen.loop.parts import Learners
from activegen.loop.proposing import Origin
from activegen.loop.segmenting import Segmenting, resized_mask
from activegen.recipes import Run, diagnosing, parse
from activegen.records import IGNORE, Request, UserError
from activegen.store import Store, from_png
from activegen.tasks.learner import Learner
from activegen.tasks.pool import Pool
from masked import palette, picture, write

pytestmark = pytest.mark.filterwarnings("ignore")  # other people's, on loading a model

CLASSES = ["forest", "river", "table"]
NETWORK = "masked:Pixelwise"
SIZES = ((13, 21), (20, 9), (17, 17), (31, 26), (12, 15), (22, 18))  # height and width


def mask(number: int, size: tuple[int, int]) -> np.ndarray:
    """A block in a field, with a corner of a third class, and the first row ignored."""
    height, width = size
    made = np.full(size, number % 3, np.uint8)
    made[height // 4 : -height // 4, width // 4 : -width // 4] = (number + 1) % 3
    made[-height // 6 :, -width // 6 :] = (number + 2) % 3
    made[0] = IGNORE
    return made


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two rounds, the first of which draws; scores and judges are toys."""
    folder = tmp_path_factory.mktemp("masks")
    for at, split in enumerate(("train", "test")):
        for number, size in enumerate(SIZES):
            image = picture(10 * at + number, size)
            write(folder / "images" / split / f"{number}.png", image)
            write(folder / "masks" / split / f"{number}.png", palette(mask(number, size)))
    tiny.controlnet().save_pretrained(folder / "controlnet")
    objectives = [
        {"disagreement": {"of": "committee"}},
        "teacher_anchor",
        {"entropy": {"of": "dropout"}},
    ]
    ascend = {"of": "latents", "through": "decoder", "step": 0.1, "objectives": objectives}
    return {
        "data": {
            "layout": "mask_folder",
            "path": str(folder),
            "size": 16,
            "options": {"classes": CLASSES},
            "train": {"count": 4},
        },
        "model": {"path": str(tiny.save(tiny.model(), folder / "model")), "device": "cpu"},
        "sampling": {"num_steps": 2, "cfg_scale": 2.0, "scheduler": "ddim"},
        "guidance": {"guided": [{"ascend": ascend}]},
        "segmentation": {
            "controls": [{"path": str(folder / "controlnet")}],
            "proposal": {"budget": 3},
            "judge": {
                "network": NETWORK,
                "members": 1,
                "steps": 2,
                "min_agreement": 0.01,
                "max_ignored": 1.0,
            },
        },
        "learner": {"network": NETWORK},
        "training": {"steps": 4, "batch_size": 4},
        "loop": {"rounds": 2, "batch": 3},
        "arms": {"active": {"generate": "guided"}},
    }


def of_objects(settings: dict[str, Any], **objects: Any) -> dict[str, Any]:
    spec = settings["segmentation"]
    proposal = {**spec["proposal"], "objects": True}
    return settings | {"segmentation": {**spec, "proposal": proposal, "objects": objects}}


def drawn(run: Run) -> list[tuple[Any, Any]]:
    """Samples of the first round and what was said of them."""
    stored = Store(str(run.folder / "arms" / "active" / "store")).round(0)
    verdicts = {verdict.id: verdict for verdict in stored.verdicts() or []}
    return [(sample, verdicts[sample.request.id]) for sample in stored.samples()]


def agreement(run: Run, image: torch.Tensor, asked: torch.Tensor) -> float:
    """How much of what counts the judge sees as it was asked for."""
    assert run.judges.together is not None
    seen = run.judges.together.predict(image[None] / 255).logits.softmax(2).mean(0)[0].argmax(0)
    return float((seen == asked)[asked != IGNORE].float().mean())


def test_own_masks_of_odd_sizes_are_guided_and_judged(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    run = Run(parse(settings), tmp_path)
    result = run.carry_out()["arms"]["active"]
    assert 0 <= result["miou"] <= 1 and result["images"] == 3 and result["steps"] == 4
    train = run.data.train
    assert len({tuple(train.mask(k).shape) for k in range(len(train))}) > 1
    for sample, verdict in drawn(run):
        assert sample.request.steering == "guided" and not sample.request.part
        asked = resized_mask(train.mask(train.index_of(sample.request.mask)), (16, 16))
        assert torch.equal(from_png(sample.mask)[0], asked) and (asked == IGNORE).any()
        told = agreement(run, from_png(sample.image), asked.long())
        assert verdict.scores["label_agreement"] == pytest.approx(told)
    assert any(verdict.accepted for _, verdict in drawn(run))


def test_one_object_of_an_own_image_is_guided_and_judged(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    run = Run(parse(of_objects(settings, dilation=1)), tmp_path)
    learner = run.network()
    ways = run.ways(Learners(learner, (learner, learner), MemoryBank()))
    assert all(isinstance(terms[-1], Inpaint) for terms in ways.values())
    run.carry_out()
    task, train, model = run.task, run.data.train, run.model()
    assert isinstance(task, Segmenting)
    for sample, verdict in drawn(run):
        assert sample.request.part
        region = task.region(sample.request, (16, 16), train)
        asked = from_png(sample.mask)[0].long().masked_fill(~region, IGNORE)
        told = agreement(run, from_png(sample.image), asked)
        assert verdict.scores["label_agreement"] == pytest.approx(told)
        # inpainted: far from the object the latents are those of the real image
        real = train.image(train.index_of(sample.request.mask))[None] / 255
        there = model.encode(
            torch.nn.functional.interpolate(real, (16, 16), mode="bilinear", antialias=True)
        )
        values = np.frombuffer(sample.latents, np.float16).astype(np.float32)
        here = torch.from_numpy(values).view(there.shape)
        outside = torch.nn.functional.max_pool2d(region[None, None].float(), 2) == 0
        assert outside.any()
        assert torch.allclose(
            here[outside.expand_as(here)], there[outside.expand_as(here)], atol=0.02
        )
    assert any(verdict.accepted for _, verdict in drawn(run))


def test_redrawn_objects_are_learnt_and_looked_into_together(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = of_objects(settings, together=1.0)
    made["segmentation"]["proposal"] |= {"budget": 12, "sampling": "uniform"}
    arms = {"active": {"generate": "plain", "judge": False, "more_real": 1}}
    learnt: list[Pool] = []
    train = Learner.train

    def spied(learner: Learner, pool: Pool, *more: Any) -> dict[str, float]:
        learnt.append(pool)
        return train(learner, pool, *more)

    monkeypatch.setattr(Learner, "train", spied)
    run = Run(parse(made | {"arms": arms}), tmp_path)
    result = run.carry_out()["arms"]["active"]
    store = Store(str(tmp_path / "arms" / "active" / "store"))
    accepted = list(store.accepted())
    assert result["images"] == len(accepted) == 12
    pool = learnt[-1].subset(learnt[-1].synthetic.nonzero().flatten())
    stored = torch.stack([from_png(sample.image) for sample, _ in accepted])
    parts = Counter((sample.request.mask, sample.request.part) for sample, _ in accepted)
    shared = Counter(mask for mask, _ in parts)
    together = [shared[sample.request.mask] > 1 for sample, _ in accepted]
    assert any(together)
    assert (pool.images != stored).flatten(1).any(1).tolist() == together
    looked: list[Pool] = []

    def look(network: Any, pool: Pool) -> None:
        looked.append(pool)
        raise StopIteration

    monkeypatch.setattr(diagnosing, "look", look)
    beside = diagnosing.Beside(run, diagnosing.HeldOut(run.network(), "", {}), 4, 4)
    ids = [accepted[k][0].request.id for k in (3, 8)]
    with pytest.raises(StopIteration):
        diagnosing.measured(run, "active", store, ids, beside)
    assert torch.equal(looked[0].images, pool.images[[3, 8]])


def test_the_judge_of_objects_knows_an_arms_further_images(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    arms = {"active": {"generate": "guided", "more_real": 2}}
    run = Run(parse(of_objects(settings) | {"arms": arms}), tmp_path)
    further = sorted(set(run.train("active").ids) - set(run.data.train.ids))
    assert len(further) == 2
    check = run.judge(run.recipe.arms["active"]).check
    assert isinstance(check, BelievedPixels) and check.where is not None
    for id in further:
        where = check.where(Request("a river", "river", 1, 0, mask=id, part=1))
        assert 0 < where.sum() < where.numel()


def test_what_cannot_be_drawn_is_refused_before_any_work(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    inpaint = settings | {"guidance": {"guided": ["inpaint"]}}
    with pytest.raises(UserError, match=r"guidance.guided: inpaint keeps .*objects to true"):
        Run(parse(inpaint), tmp_path / "run").check()
    Run(parse(of_objects(inpaint)), tmp_path / "run").check()
    unused = settings | {"guidance": {**settings["guidance"], "adversarial": ["inpaint"]}}
    Run(parse(unused), tmp_path / "run").check()
    own = {"guidance": {"guided": [{"recurrence": {"times": 2}}]}, "sampling": {"num_steps": 2}}
    Run(parse(settings | own), tmp_path / "run").check()  # the model's own is ddim
    own["sampling"]["scheduler"] = "unipc"
    with pytest.raises(UserError, match="UniPCMultistepScheduler remembers"):
        Run(parse(settings | own), tmp_path / "run").check()
    changed = {"active": {"changes": {"segmentation.proposal.objects": True}}}
    Run(parse(inpaint | {"arms": changed}), tmp_path / "run").check()
    assert not (tmp_path / "run").exists()


def test_colours_of_a_recipe_are_looked_at(settings: dict[str, Any], tmp_path: Path) -> None:
    def check(palette: dict[str, list[int]]) -> Run:
        controls = [{**settings["segmentation"]["controls"][0], "palette": palette}]
        spec = {**settings["segmentation"], "controls": controls}
        run = Run(parse(settings | {"segmentation": spec}), tmp_path)
        run.check()
        return run

    mine = {"forest": [9, 8, 7], "river": [1, 2, 3], "table": [4, 5, 6]}
    task = check(mine).task
    assert isinstance(task, Segmenting)
    assert task.paintings[0].palette.of(CLASSES) == [(9, 8, 7), (1, 2, 3), (4, 5, 6)]
    with pytest.raises(UserError, match="class 'table' has no colour"):
        check({name: mine[name] for name in ("forest", "river")})
    with pytest.raises(UserError, match="'forest' and 'table' have one colour"):
        check(mine | {"table": [9, 8, 7]})


def test_prompts_have_room_in_the_text_encoder(settings: dict[str, Any], tmp_path: Path) -> None:
    path = tiny.save(tiny.model(tokens=14), tmp_path / "model")
    words = {"forest": ["forest wood"], "river": ["river"], "table": ["table"]}
    recipe = settings | {"model": {"path": str(path), "device": "cpu"}, "prompts": {"words": words}}
    run = Run(parse(recipe), tmp_path / "run")
    tokenizer, rng = run.place.tokenizer(), np.random.default_rng(0)
    for request in run.task.propose_plain(12, run.data.train, Origin(0, "a", ""), rng):
        assert len(tokenizer(request.prompt)["input_ids"]) <= 14
        said = [name for name in CLASSES if name in request.prompt]
        assert CLASSES[request.target] in said and len(said) == 2
