import math
from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from torch import nn

from activegen.records import IGNORE, UnknownWord, UserError
from activegen.tasks.classifier import Classifier
from activegen.tasks.evaluate import evaluate
from activegen.tasks.evaluate_masks import evaluate_masks
from activegen.tasks.learner import Diverged, Learner, TrainSettings, weights_hash
from activegen.tasks.losses import LOSSES
from activegen.tasks.networks import build
from activegen.tasks.pool import Pool
from activegen.tasks.seeding import seeded
from activegen.tasks.segmenter import Segmenter
from activegen.tasks.segmenters import build_segmenter
from activegen.tasks.unreliable import UNRELIABLE

SETTINGS = TrainSettings(
    steps=8,
    batch_size=6,
    learning_rate=0.05,
    warmup_steps=2,
    augmentation="land_cover",
    mixup=0.2,
    label_smoothing=0.1,
    ema_decay=0.9,
    synthetic_share=0.4,
)
NOISY = TrainSettings(40, 12, "adamw", learning_rate=0.01, ema_decay=0.9)


def colours(count, seed=0, synthetic=0):
    """Noisy red, green and blue images."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    images = torch.rand(count, 3, 16, 16, generator=rng)
    images[torch.arange(count), labels] += 0.3
    marks = torch.arange(count) >= count - synthetic
    bytes_ = (images.clamp(0, 1) * 255).to(torch.uint8)
    return Pool(bytes_, labels, torch.ones(count), marks)


def scenes(count, seed=0, synthetic=0):
    """Noisy scenes of red and green patches, one corner ignored."""
    rng = torch.Generator().manual_seed(seed)
    masks = torch.randint(0, 2, (count, 4, 4), generator=rng)
    masks = masks.repeat_interleave(4, 1).repeat_interleave(4, 2)
    images = torch.rand(count, 3, 16, 16, generator=rng) * 0.5
    images[:, 0] += (masks == 0) * 0.4
    images[:, 1] += (masks == 1) * 0.4
    masks[:, :3, :3] = IGNORE
    marks = torch.arange(count) >= count - synthetic
    bytes_ = (images.clamp(0, 1) * 255).to(torch.uint8)
    return Pool(bytes_, masks.to(torch.uint8), torch.ones(count), marks)


def mask_learner(settings, seed=0):
    with seeded(seed):
        return Learner(build_segmenter("small", 2, 16), settings, "cpu")


def learner(settings=SETTINGS, seed=0):
    with seeded(seed):
        return Learner(build("small", 3, 16), settings, "cpu")


def test_it_learns_three_colours():
    ours = learner(TrainSettings(steps=40, batch_size=24, ema_decay=0.9, augmentation="flips"))
    test = colours(60, seed=1)
    ours.train(colours(60), 40)
    assert evaluate(ours.model, test.images, test.labels).accuracy > 0.95
    assert evaluate(ours.averaged, test.images, test.labels).accuracy > 0.95


@pytest.mark.parametrize("optimiser, rate", [("sgd", 0.05), ("adamw", 1e-3)])
@pytest.mark.parametrize("amp", ["no", "bf16"])
def test_interrupted_and_resumed_is_uninterrupted(tmp_path, optimiser, rate, amp):
    settings = replace(SETTINGS, optimiser=optimiser, learning_rate=rate, amp=amp)
    pool = colours(20, synthetic=5)
    whole = learner(settings)
    whole.train(pool, 4)
    told = whole.train(pool, 8)

    first = learner(settings)
    first.train(pool, 4)
    first.save(tmp_path / "state.safetensors")
    torch.rand(17)  # somebody else draws in between
    second = learner(settings, seed=99)
    second.load(tmp_path / "state.safetensors")
    assert second.step == 4
    assert weights_hash(second.model) == weights_hash(first.model)
    assert second.train(pool, 8) == told
    assert weights_hash(second.model) == weights_hash(whole.model)
    assert weights_hash(second.averaged) == weights_hash(whole.averaged)


@pytest.mark.parametrize("amp", ["no", "bf16"])
def test_with_masks_too(tmp_path, amp):
    settings = replace(SETTINGS, mixup=0.0, amp=amp, augmentation="photo")
    pool = scenes(20, synthetic=5)
    whole = mask_learner(settings)
    whole.train(pool, 4)
    told = whole.train(pool, 8)

    first = mask_learner(settings)
    first.train(pool, 4)
    first.save(tmp_path / "state.safetensors")
    torch.rand(17)  # somebody else draws in between
    second = mask_learner(settings, seed=99)
    second.load(tmp_path / "state.safetensors")
    assert second.train(pool, 8) == told
    assert weights_hash(second.model) == weights_hash(whole.model)
    assert weights_hash(second.averaged) == weights_hash(whole.averaged)


def test_it_learns_masks():
    ours = mask_learner(TrainSettings(steps=30, batch_size=12, ema_decay=0.9, augmentation="flips"))
    test = scenes(12, seed=1)
    before = evaluate_masks(ours.model, test.images, test.labels).miou
    ours.train(scenes(40), 30)
    assert before < 0.6
    assert evaluate_masks(ours.model, test.images, test.labels).miou > 0.85
    assert evaluate_masks(ours.averaged, test.images, test.labels).miou > 0.85


def test_training_does_not_touch_the_global_generator():
    before = torch.get_rng_state()
    ours = learner()
    ours.train(colours(12), 2)
    assert torch.equal(before, torch.get_rng_state())


def test_the_seed_matters():
    pool = colours(20)
    hashes = set()
    for seed in (0, 1):
        ours = learner(replace(SETTINGS, seed=seed))
        ours.train(pool, 2)
        hashes.add(weights_hash(ours.model))
    assert len(hashes) == 2


def test_averaged_weights_differ_and_norm_statistics_do_not():
    ours = learner()
    ours.train(colours(20), 4)
    assert ours.averaged is not ours.model
    live, mean = ours.model.state_dict(), ours.averaged.state_dict()
    assert not torch.equal(live["network.0.weight"], mean["network.0.weight"])
    assert torch.equal(live["network.1.running_var"], mean["network.1.running_var"])


def test_the_average_is_what_the_docstring_says():
    ours = learner(replace(SETTINGS, ema_decay=0.5))
    states = []
    ours.train(colours(20), 3, lambda *_: states.append(ours.model.network[0].weight.clone()))
    mean = states[0]
    for step, state in enumerate(states[1:], start=1):
        decay = min(0.5, (1 + step) / (10 + step))
        mean = decay * mean + (1 - decay) * state
    assert torch.allclose(ours.averaged.network[0].weight, mean, atol=1e-7)


def test_without_averaging_the_live_model_is_given():
    ours = learner(replace(SETTINGS, ema_decay=0.0))
    assert ours.averaged is ours.model


def test_images_of_weight_zero_do_not_matter():
    pool, noise = colours(12), colours(5, seed=3)
    ignored = Pool(noise.images, (noise.labels + 1) % 3, torch.zeros(5), noise.synthetic)
    hashes = []
    for this in (pool, pool + ignored):
        ours = learner(replace(SETTINGS, synthetic_share=None))
        ours.train(this, 3)
        hashes.append(weights_hash(ours.model))
    assert hashes[0] == hashes[1]


def test_synthetic_weight_zero_is_real_only():
    mixed = colours(16, synthetic=4)
    real = Pool(mixed.images[:12], mixed.labels[:12], mixed.weights[:12], mixed.synthetic[:12])
    hashes = []
    for this in (mixed, real):
        ours = learner(replace(SETTINGS, synthetic_weight=0.0))
        ours.train(this, 3)
        hashes.append(weights_hash(ours.model))
    assert hashes[0] == hashes[1]


class Constant(nn.Module):
    """The same logits for every image."""

    def __init__(self, *logits):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, x):
        return self.logits.expand(len(x), -1)


def test_the_loss_is_weighted_per_image():
    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    pool = Pool(images, torch.tensor([0, 1]), torch.tensor([3.0, 1.0]), torch.zeros(2).bool())
    odds = torch.tensor([0.8, 0.2]).log().tolist()
    ours = Learner(Classifier(Constant(*odds), 2), TrainSettings(steps=1, batch_size=2), "cpu")
    loss = ours.train(pool, 1)["loss"]
    assert loss == pytest.approx(-(3 * math.log(0.8) + math.log(0.2)) / 4, abs=1e-6)


class ConstantMap(nn.Module):
    """The same logits for every pixel."""

    def __init__(self, *logits):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, x):
        return self.logits.view(1, -1, 1, 1).expand(len(x), -1, *x.shape[-2:])


def mask_loss(masks, weights, **settings):
    """Of one step with odds of 0.8 to 0.2."""
    odds = torch.tensor([0.8, 0.2]).log().tolist()
    count = len(masks)
    images = torch.zeros(count, 3, *masks.shape[1:], dtype=torch.uint8)
    pool = Pool(images, masks.to(torch.uint8), torch.tensor(weights), torch.zeros(count).bool())
    settings = TrainSettings(steps=1, batch_size=count, **settings)
    ours = Learner(Segmenter(ConstantMap(*odds), 2), settings, "cpu")
    loss = ours.train(pool, 1)["loss"]
    assert ours.model.network.logits.isfinite().all()
    return loss


def test_the_loss_of_a_mask_is_the_mean_of_the_pixels_that_count():
    half = torch.tensor([[0, 0], [IGNORE, IGNORE]])
    mixed = torch.tensor([[1, 0], [1, 1]])
    ignored = torch.full((2, 2), IGNORE)
    first, second = -math.log(0.8), -(math.log(0.8) + 3 * math.log(0.2)) / 4
    assert mask_loss(torch.stack([half, mixed]), [3.0, 1.0]) == pytest.approx(
        (3 * first + second) / 4, abs=1e-6
    )
    assert mask_loss(torch.stack([half, ignored]), [1.0, 1.0]) == pytest.approx(first / 2, abs=1e-6)
    assert mask_loss(ignored[None], [1.0]) == 0
    smooth = -0.9 * math.log(0.8) - 0.1 * (math.log(0.8) + math.log(0.2)) / 2
    found = mask_loss(torch.stack([half, ignored]), [1.0, 1.0], label_smoothing=0.1)
    assert found == pytest.approx(smooth / 2, abs=1e-6)


class Certain(nn.Module):
    """Red is the first class and green the second, without doubt."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(30.0))

    def forward(self, x):
        return self.scale * x[:, :2]


def test_masks_are_augmented_with_their_images():
    masks = torch.randint(0, 2, (12, 8, 8), generator=torch.Generator().manual_seed(0))
    images = torch.stack([masks == 0, masks == 1, masks > 1], 1).to(torch.uint8) * 255
    pool = Pool(images, masks.to(torch.uint8), torch.ones(12), torch.zeros(12).bool())
    settings = TrainSettings(steps=4, batch_size=12, learning_rate=1e-9, augmentation="flips")
    assert Learner(Segmenter(Certain(), 2), settings, "cpu").train(pool, 4)["loss"] < 1e-6


def test_the_class_of_a_picture_may_be_255():
    images = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    pool = Pool(images, torch.tensor([255]), torch.ones(1), torch.zeros(1).bool())
    ours = Learner(Classifier(Constant(*[0.0] * 300), 300), TrainSettings(steps=1), "cpu")
    assert ours.train(pool, 1)["loss"] == pytest.approx(math.log(300), abs=1e-5)


def doubted(seed=0, flipped=0.4):
    """Scenes in which so many pixels have the other label; most of these are told."""
    rng = torch.Generator().manual_seed(seed)
    pool = scenes(12, seed, synthetic=12)
    wrong = torch.rand(pool.labels.shape, generator=rng) < flipped
    told = wrong == (torch.rand(pool.labels.shape, generator=rng) < 0.9)
    labels = torch.where(wrong & (pool.labels != IGNORE), 1 - pool.labels, pool.labels)
    return replace(pool, labels=labels, reliability=(~told).to(torch.uint8) * 230)


def plain_network(seed=0, classes=2):
    """Three convolutions, without norms and dropout."""
    with seeded(seed):
        layers = [nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1)]
        layers += [nn.ReLU(), nn.Conv2d(16, classes, 1)]
        return Segmenter(nn.Sequential(*layers), classes, (16, 16), multiple=1)


def test_doubting_pixels_beats_believing_wrong_ones():
    test = scenes(12, seed=9)
    found = {}
    for unreliable in UNRELIABLE:
        settings = replace(NOISY, unreliable=unreliable, teach_from=0.2)
        ours = Learner(plain_network(), settings, "cpu")
        ours.train(doubted(), settings.steps)
        found[unreliable] = evaluate_masks(ours.averaged, test.images, test.labels).miou
    assert min(found[name] for name in ("weight", "ignore", "teacher")) > found["trust"] + 0.02


def test_without_reliability_nothing_is_doubted():
    hashes = set()
    for unreliable in UNRELIABLE:
        settings = replace(NOISY, steps=2, unreliable=unreliable)
        ours = Learner(plain_network(), settings, "cpu")
        ours.train(scenes(12), 2)
        hashes.add(weights_hash(ours.model))
    assert len(hashes) == 1


def one_step(unreliable, step=0, **settings):
    """The loss of a pixel of class 0, one of class 1 and an ignored one, at odds of 0.8 to 0.2."""
    odds = torch.tensor([0.8, 0.2]).log().tolist()
    pool = Pool(
        torch.zeros(1, 3, 1, 3, dtype=torch.uint8),
        torch.tensor([[[0, 1, IGNORE]]], dtype=torch.uint8),
        torch.ones(1),
        torch.ones(1).bool(),
        torch.tensor([[[255, 51, 0]]], dtype=torch.uint8),
    )
    settings = TrainSettings(10, learning_rate=1e-9, unreliable=unreliable, **settings)
    ours = Learner(Segmenter(ConstantMap(*odds), 2, multiple=1), settings, "cpu")
    ours.step = step
    return ours.train(pool, step + 1)["loss"]


def test_the_loss_of_unreliable_pixels():
    right, wrong = -math.log(0.8), -math.log(0.2)
    assert one_step("trust") == pytest.approx((right + wrong) / 2, abs=1e-6)
    assert one_step("weight") == pytest.approx((right + 0.2 * wrong) / 2, abs=1e-6)
    assert one_step("ignore") == pytest.approx(right, abs=1e-6)
    robust = (1 - 0.8**0.7 + 0.2 * (1 - 0.2**0.7)) / 0.7
    assert one_step("weight", loss="generalised") == pytest.approx(robust / 2, abs=1e-6)


def test_a_teacher_is_asked_when_it_has_learnt():
    early = one_step("teacher", step=1, ema_decay=0.9, teach_from=0.2)
    assert early == one_step("ignore")
    # the teacher sees class 0 in the second pixel too, and nothing in the ignored one
    late = one_step("teacher", step=2, ema_decay=0.9, teach_from=0.2)
    assert late == pytest.approx(-math.log(0.8), abs=1e-6)
    alike = one_step("teacher", step=2, ema_decay=0.9, teach_from=0.2, loss="symmetric")
    assert alike == pytest.approx(-0.1 * math.log(0.8) + 4 * 0.2, abs=1e-6)


def test_the_teacher_is_the_average():
    class Fixed(ConstantMap):
        def forward(self, x):
            return super().forward(x) if self.training else -super().forward(x)

    pool = Pool(
        torch.zeros(1, 3, 1, 1, dtype=torch.uint8),
        torch.zeros(1, 1, 1, dtype=torch.uint8),
        torch.ones(1),
        torch.ones(1).bool(),
        torch.zeros(1, 1, 1, dtype=torch.uint8),
    )
    odds = torch.tensor([0.8, 0.2]).log().tolist()
    settings = TrainSettings(1, unreliable="teacher", ema_decay=0.9, teach_from=0.0)
    ours = Learner(Segmenter(Fixed(*odds), 2, multiple=1), settings, "cpu")
    assert ours.train(pool, 1)["loss"] == pytest.approx(-math.log(0.2), abs=1e-6)


@pytest.mark.parametrize("loss", set(LOSSES) - {"cross_entropy"})
def test_robust_losses_learn(loss):
    settings = TrainSettings(40, batch_size=24, loss=loss, learning_rate=0.1)
    ours = learner(settings)
    ours.train(colours(60), 40)
    test = colours(60, seed=1)
    assert evaluate(ours.model, test.images, test.labels).accuracy > 0.9


def test_robust_losses_mix_pictures_too():
    odds = torch.tensor([0.8, 0.2]).log().tolist()
    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    pool = Pool(images, torch.tensor([0, 1]), torch.ones(2), torch.zeros(2).bool())
    settings = TrainSettings(1, batch_size=2, mixup=0.4, loss="generalised")
    loss = Learner(Classifier(Constant(*odds), 2), settings, "cpu").train(pool, 1)["loss"]
    assert loss == pytest.approx((2 - 0.8**0.7 - 0.2**0.7) / 1.4, abs=1e-6)


def test_a_teacher_resumes_too(tmp_path):
    settings = replace(NOISY, steps=8, unreliable="teacher", augmentation="photo")
    whole = Learner(plain_network(), settings, "cpu")
    whole.train(doubted(), 4)
    whole.save(tmp_path / "state.safetensors")
    second = Learner(plain_network(99), settings, "cpu")
    second.load(tmp_path / "state.safetensors")
    assert second.train(doubted(), 8) == whole.train(doubted(), 8)
    assert weights_hash(second.averaged) == weights_hash(whole.averaged)


def test_settings_that_do_not_fit_together_are_told():
    with pytest.raises(UserError, match="set ema_decay"):
        TrainSettings(unreliable="teacher")
    with pytest.raises(UserError, match="label_smoothing is of the loss 'cross_entropy'"):
        TrainSettings(loss="symmetric", label_smoothing=0.1)
    with pytest.raises(UserError, match="only pixels of masks can be unreliable"):
        learner(TrainSettings(unreliable="ignore"))


def test_masks_are_not_mixed():
    with pytest.raises(UserError, match="set mixup to 0"):
        mask_learner(SETTINGS)


def test_classes_are_for_classifiers_and_masks_for_segmenters():
    settings = TrainSettings(steps=1)
    with pytest.raises(UserError, match="a segmenter learns from masks"):
        mask_learner(settings).train(colours(6), 1)
    with pytest.raises(UserError, match="only a segmenter learns from"):
        learner(settings).train(scenes(6), 1)
    pool = scenes(6)
    shifted = Pool(pool.images, pool.labels.clamp(max=253) + 1, pool.weights, pool.synthetic)
    with pytest.raises(UserError, match=r"0 to 1.*or 255.*got 1 to 254"):
        mask_learner(settings).train(shifted, 1)


def test_a_loss_that_is_not_finite_stops_before_the_weights_change():
    ours = Learner(Classifier(Constant(math.inf, 0.0), 2), TrainSettings(steps=3), "cpu")
    before = weights_hash(ours.model)
    pool = colours(3)
    two = Pool(pool.images, pool.labels % 2, pool.weights, pool.synthetic)
    with pytest.raises(Diverged, match=r"nan in step 0.*lower the learning rate"):
        ours.train(two, 3)
    assert weights_hash(ours.model) == before
    assert ours.step == 0


class Root(nn.Module):
    """Logits of 0, whose gradient is infinite."""

    def __init__(self):
        super().__init__()
        self.squares = nn.Parameter(torch.zeros(2))

    def forward(self, x):
        return self.squares.sqrt().expand(len(x), -1)


@pytest.mark.parametrize("amp", ["no", "bf16", "fp16"])
def test_a_gradient_that_is_not_finite_never_changes_the_weights(amp):
    ours = Learner(Classifier(Root(), 2), TrainSettings(steps=3, amp=amp), "cpu")
    pool = colours(3)
    two = Pool(pool.images, pool.labels % 2, pool.weights, pool.synthetic)
    if amp == "fp16":  # with loss scaling such a step is left out
        ours.train(two, 1)
    else:
        with pytest.raises(Diverged, match=r"gradient's norm became .* in step 0.*learning rate"):
            ours.train(two, 3)
    assert ours.step == (amp == "fp16")
    assert torch.equal(ours.model.network.squares, torch.zeros(2))


@pytest.fixture
def forget():
    """Lets accelerate read its environment again."""

    def forgotten():
        AcceleratorState._reset_state()
        GradientState._reset_state()

    yield forgotten
    forgotten()


@pytest.mark.parametrize(
    ("name", "value"),
    [("ACCELERATE_MIXED_PRECISION", "bf16"), ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")],
)
def test_the_environment_of_accelerate_changes_nothing(monkeypatch, forget, name, value):
    def hashed():
        forget()
        ours = learner()
        ours.train(colours(12), 1)
        return weights_hash(ours.model)

    plain = hashed()
    monkeypatch.setenv(name, value)
    assert hashed() == plain


def test_accelerate_with_another_precision_is_told(forget):
    forget()
    Accelerator(mixed_precision="bf16")
    with pytest.raises(UserError, match=r"already in use in this process.*mixed_precision='no'"):
        learner()


def test_it_tells_each_step_and_goes_on_from_there():
    heard = []
    ours = learner()
    pool = colours(12, synthetic=4)
    first = ours.train(pool, 3, lambda step, loss: heard.append((step, loss)))
    assert [step for step, _ in heard] == [1, 2, 3]
    assert first["loss"] == pytest.approx(sum(loss for _, loss in heard) / 3)
    assert first["steps"] == 3
    assert ours.train(pool, 5)["steps"] == 2
    assert ours.step == 5
    nothing = ours.train(pool, 5)
    assert nothing["steps"] == 0 and math.isnan(nothing["loss"])
    assert not ours.model.training


def test_it_does_not_train_past_its_schedule():
    with pytest.raises(UserError, match="schedule ends at 8"):
        learner().train(colours(6), 9)


def test_labels_without_a_class_are_told():
    pool = colours(6)
    with pytest.raises(UserError, match="0 to 2"):
        learner().train(Pool(pool.images, pool.labels + 1, pool.weights, pool.synthetic), 1)


def test_a_failed_write_leaves_the_old_state_alone(tmp_path, monkeypatch):
    path = tmp_path / "state.safetensors"
    ours = learner()
    ours.save(path)
    old = path.read_bytes()
    ours.train(colours(6), 1)

    def full(_):
        raise OSError("the disk is full")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="full"):
        ours.save(path)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def test_a_state_of_other_settings_is_refused(tmp_path):
    learner().save(tmp_path / "state")
    with pytest.raises(UserError, match=r"learning_rate was 0.05, is 0.1"):
        learner(replace(SETTINGS, learning_rate=0.1)).load(tmp_path / "state")


def test_settings_that_an_older_state_lacks_have_their_defaults():
    state = learner().state_dict()
    del state["numbers"]["settings"]["reliable_share"]
    learner().load_state_dict(state)
    with pytest.raises(UserError, match=r"reliable_share was 0.5, is 0.3"):
        learner(replace(SETTINGS, reliable_share=0.3)).load_state_dict(state)


def test_a_state_of_another_network_is_refused(tmp_path):
    learner().save(tmp_path / "state")
    other = Learner(Classifier(Constant(0.0, 0.0, 0.0), 3), SETTINGS, "cpu")
    with pytest.raises(UserError, match="another network"):
        other.load(tmp_path / "state")


def test_what_is_not_a_state_is_told(tmp_path):
    with pytest.raises(UserError, match="not a saved training state"):
        learner().load(tmp_path / "none")
    (tmp_path / "junk").write_bytes(b"junk")
    with pytest.raises(UserError, match="not a saved training state"):
        learner().load(tmp_path / "junk")


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"batch_size": 0},
        {"learning_rate": 0.0},
        {"learning_rate": math.nan},
        {"warmup_steps": 2000},
        {"ema_decay": 1.0},
        {"synthetic_share": 1.5},
        {"synthetic_weight": -1.0},
        {"label_smoothing": 1.0},
        {"teach_from": 1.5},
    ],
)
def test_settings_out_of_range_are_named(wrong):
    with pytest.raises(UserError, match=f"{next(iter(wrong))} must be"):
        TrainSettings(**wrong)


@pytest.mark.parametrize(
    "wrong", ["optimiser", "schedule", "amp", "augmentation", "loss", "unreliable"]
)
def test_unknown_words_are_answered(wrong):
    with pytest.raises(UnknownWord, match="choose one of"):
        TrainSettings(**{wrong: "sdg"})


def test_the_schedule_warms_up_and_falls_to_zero():
    settings = TrainSettings(steps=10, warmup_steps=2, learning_rate=1.0)
    rates = [settings.rate(step) for step in range(11)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates[6] == pytest.approx(0.5)
    assert rates[10] == pytest.approx(0.0)
    assert replace(settings, schedule="constant").rate(9) == 1.0


def test_the_hash_names_the_weights():
    one, same = learner().model, learner().model
    assert weights_hash(one) == weights_hash(same)
    with torch.no_grad():
        same.network[0].weight[0, 0, 0, 0] += 1
    assert weights_hash(one) != weights_hash(same)
