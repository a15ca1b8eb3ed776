"""Words by token ids; maps against diffusers' own attention probabilities."""

from collections.abc import Sequence

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor

import tiny
from activegen.data.prompts import readable
from activegen.diffusion.attention import (
    Maps,
    Reading,
    Sizes,
    Steps,
    Words,
    find_tokens,
    foci,
    focus,
    height_of_layers,
    normalised,
    resized,
)
from activegen.diffusion.levels import Level, Solver
from activegen.diffusion.stable_diffusion import StableDiffusion
from activegen.records import UserError

WORDS = ["dining table", "tv monitor", "aquarium_fish"]


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("prompt", ["{}", "a photo of a {}, by the river", "A {} and a FOREST"])
def test_words_of_several_tokens_are_found_in_any_prompt(word: str, prompt: str):
    words = tiny.tokenizer()
    (row,) = focus(words, [prompt.format(word)], [word])
    ids = words(prompt.format(word))["input_ids"]
    found = row.nonzero().flatten().tolist()
    text = "".join(words.convert_ids_to_tokens(ids[i]) for i in found).replace("</w>", " ")
    assert text.replace(" ", "") == word.replace(" ", "")
    assert len(found) > 2
    assert row.sum().item() == pytest.approx(1)
    assert row.amax() == row[found[0]]


def test_several_words_of_a_prompt_are_found_by_their_readable_names():
    words, names = tiny.tokenizer(), [*WORDS, "tv-monitor"]
    prompts = ["a photo of a dining table and a tv monitor", "an aquarium fish"]
    found = foci(words, prompts, [[readable(n) for n in names[:2]], [readable(names[2])]])
    assert found.shape == (2, 2, 77)
    for prompt, rows, named in zip(prompts, found, (names[:2], names[2:3]), strict=True):
        for row, name in zip(rows, named, strict=False):
            assert torch.equal(row, focus(words, [prompt], [readable(name)])[0])
    assert torch.equal(found[0, 1], foci(words, prompts[:1], [["tv monitor"]])[0, 0])
    assert (found[1, 1] == 0).all()
    assert readable("tv-monitor") == "tv monitor" and readable("diningTable") == "dining table"


@pytest.mark.parametrize(
    ("named", "said"), [([], "no word to find"), ([""], "'' is not"), (["table", "tv"], "'tv' is")]
)
def test_a_missing_word_among_several_is_an_error(named: list[str], said: str):
    with pytest.raises(UserError, match=said):
        foci(tiny.tokenizer(), ["a river", "a photo of a table"], [["river"], named])


def test_every_occurrence_counts_once():
    assert find_tokens([7, 7, 7, 1], [7, 7]) == [0, 1, 2]
    assert find_tokens([1, 2, 3, 1, 2], [1, 2]) == [0, 1, 3, 4]
    assert find_tokens([1, 2], [1, 2, 3]) == []
    (row,) = focus(tiny.tokenizer(), ["river, river"], ["river"])
    assert row.sum().item() == pytest.approx(1)
    assert (row > 0).sum() == 2


def test_a_word_inside_a_longer_one_is_that_one():
    words, prompt = tiny.tokenizer(), "a photo of a street and a street sign"
    (both,) = foci(words, [prompt], [["street", "street sign"]])
    (twice,) = focus(words, [prompt], ["street"])
    (sign,) = focus(words, [prompt], ["street sign"])
    assert (both > 0).any(0).sum() == (twice > 0).sum() + (sign > 0).sum() - (both[0] > 0).sum()
    assert (both[0] > 0).sum() == (twice > 0).sum() / 2 and not (both[0] * both[1]).any()
    assert torch.equal(both[1], sign)
    (alone,) = foci(words, ["a street sign"], [["street", "street sign"]])
    assert alone[0].sum().item() == pytest.approx(1)  # there is no other street


@pytest.mark.parametrize("word", ["river", " ", "forests", "able"])
def test_a_word_that_is_not_in_its_prompt_is_an_error(word: str):
    with pytest.raises(UserError, match=f"'{word}' is not in the prompt"):
        focus(tiny.tokenizer(), ["a photo of a table in a forest"], [word])


def test_no_word_looks_nowhere():
    rows = focus(tiny.tokenizer(), ["a photo of a river", "a photo of a forest"], ["", "forest"])
    assert (rows[0] == 0).all() and rows[1].sum().item() == pytest.approx(1)
    maps = run(tiny.model(), noise(2, 4, 8, 8), ["", "forest"], attention=True).attention
    assert maps is not None and (maps[0] == 0).all() and maps[1].amax() > 0


def test_a_word_behind_the_tokenizers_length_is_an_error():
    prompt = "a " * 100 + "river"
    with pytest.raises(UserError, match="first 77 tokens"):
        focus(tiny.tokenizer(), [prompt], ["river"])
    with pytest.raises(UserError, match="first 8 tokens"):
        focus(tiny.tokenizer(8), ["a photo of a photo of a river"], ["river"])


class Keeping(AttnProcessor):
    """Diffusers' plain processor, and the probabilities that ``get_attention_scores`` gives it.

    Towards the text, or from picture to picture where there is none.
    """

    def __init__(self, kept: list[torch.Tensor]):
        super().__init__()
        self.kept = kept

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, *rest, **more):
        query = attn.head_to_batch_dim(attn.to_q(hidden_states))
        keys = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        key = attn.head_to_batch_dim(attn.to_k(keys))
        scores = attn.get_attention_scores(query, key)
        self.kept.append(scores.unflatten(0, (-1, attn.heads)).mean(1))
        return super().__call__(attn, hidden_states, encoder_hidden_states, *rest, **more)


def plain_maps(
    model: StableDiffusion, latents: torch.Tensor, words: list[str], shape: tuple[int, int]
) -> torch.Tensor:
    """By hand: each layer of the size, conditional half, sub-tokens' columns averaged."""
    prompts = [f"a photo of {word}" for word in words]
    kept: list[torch.Tensor] = []
    for name, layer in model.unet.named_modules():
        if name.endswith("attn2") and not name.startswith("mid_block"):
            layer.set_processor(Keeping(kept))
    run(model, latents, words, attention=False)
    rows = focus(model.tokenizer, prompts, words)
    maps = [
        torch.stack([m[:, r > 0].mean(1) for m, r in zip(k[len(words) :], rows, strict=True)])
        for k in kept
        if k.shape[1] == shape[0] * shape[1]
    ]
    assert len(maps) > 1
    return torch.stack(maps).mean(0).unflatten(1, shape)


def run(model: StableDiffusion, latents: torch.Tensor, words: list[str], attention: bool):
    conditioning = model.condition([f"a photo of {word}" for word in words], words)
    level = Solver(model.scheduler, 4).levels[1]
    with torch.no_grad():
        return model.denoise(latents, conditioning, level, 7.5, attention)


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("tokens", [77, 32])
@pytest.mark.parametrize(
    ("size", "latents", "shape"),
    [
        (8, (8, 8), (8, 8)),
        (8, (8, 12), (8, 12)),
        (16, (16, 16), (16, 16)),
        (8, (16, 16), (8, 8)),
        (5, (9, 7), (5, 4)),
    ],
)
def test_maps_are_the_plain_attention_of_the_prompt_alone(
    size: int, latents: tuple[int, int], shape: tuple[int, int], tokens: int
):
    z, words = noise(2, 4, *latents), ["river", "dining table"]
    maps = run(tiny.model(tokens=tokens, attention_size=size), z, words, True).attention
    assert maps is not None and maps.shape == (2, *shape)
    expected = plain_maps(tiny.model(tokens=tokens), z, words, shape)
    torch.testing.assert_close(maps, expected, atol=1e-6, rtol=1e-4)
    assert maps.std() > 1e-4


def test_recording_changes_nothing_and_stops():
    model, z, words = tiny.model(), noise(2, 4, 8, 8), ["river", "forest"]
    before = run(model, z, words, False)
    recorded = run(model, z, words, True)
    after = run(model, z, words, False)
    assert before.attention is None and after.attention is None
    assert torch.equal(before.output, recorded.output)
    assert torch.equal(before.output, after.output)


def test_an_interrupted_forward_does_not_leave_the_recorder_on():
    model, z = tiny.model(), noise(2, 4, 8, 8)
    with pytest.raises(RuntimeError):
        run(model, noise(2, 5, 8, 8), ["river", "forest"], True)
    run(model, z[:1], ["river"], False)
    maps = run(model, z[:1], ["river"], True).attention
    assert maps is not None and maps.shape == (1, 8, 8)


def test_two_models_of_the_same_parts_do_not_disturb_each_other():
    first = tiny.model()
    parts = (first.unet, first.vae, first.text_encoder, first.tokenizer, first.scheduler)
    second = StableDiffusion(*parts, attention_size=4)
    z = noise(1, 4, 8, 8)
    sizes = [run(model, z, ["river"], True).attention.shape for model in (first, second)]
    assert sizes == [(1, 8, 8), (1, 4, 4)]


def test_a_gradient_passes_a_recorded_layer_and_the_map_is_constant():
    model = tiny.model()
    z = noise(1, 4, 8, 8).requires_grad_()
    level = Solver(model.scheduler, 4).levels[1]
    seen = model.denoise(z, model.condition(["a river"], ["river"]), level, 7.5, True)
    assert seen.attention is not None and not seen.attention.requires_grad
    (gradient,) = torch.autograd.grad(seen.clean.sum(), z)
    assert gradient.abs().sum() > 0


def test_a_size_that_no_layer_has_is_said():
    with pytest.raises(UserError, match="no text attention at 6 pixels"):
        run(tiny.model(attention_size=6), noise(1, 4, 8, 8), ["river"], True)


def test_half_precision_maps_are_shares():
    model = tiny.model()
    for part in (model.unet, model.text_encoder, model.vae):
        part.to(torch.bfloat16)
    seen = run(model, noise(2, 4, 8, 8), ["river", "forest"], True)
    assert seen.attention is not None and seen.attention.dtype == torch.float32
    assert 0 <= seen.attention.amin() and seen.attention.amax() <= 1
    assert seen.output.dtype == torch.float32


def test_normalised_maps_span_0_to_1_and_a_constant_one_is_0():
    maps = torch.stack([torch.arange(6.0).view(2, 3) * 0.01, torch.full((2, 3), 0.4)])
    out = normalised(maps)
    torch.testing.assert_close(out[0], torch.arange(6.0).view(2, 3) / 5)
    assert (out[1] == 0).all()
    assert resized(out, (4, 6)).shape == (2, 4, 6)


PROMPTS = ["a photo of a dining table in a forest", "a river"]
NAMED = [["dining table", "forest"], ["river"]]


def read(
    model: StableDiffusion, latents: torch.Tensor, reading: Reading | None, attention: bool = False
):
    conditioning = model.condition(PROMPTS[: len(latents)], [""] * len(latents))
    level = Solver(model.scheduler, 4).levels[1]
    with torch.no_grad():
        return model.denoise(latents, conditioning, level, 7.5, attention, reading)


def maps_of(model: StableDiffusion, latents: torch.Tensor, reading: Reading) -> Maps:
    maps = read(model, latents, reading).maps
    assert maps is not None
    return maps


def plain(layers: str, latents: torch.Tensor) -> list[torch.Tensor]:
    """The conditional half's probabilities of each of these layers, by diffusers."""
    model, kept = tiny.model(latent_size=latents.shape[2]), list[torch.Tensor]()
    for name, layer in model.unet.named_modules():
        if name.endswith(layers) and not name.startswith("mid_block"):
            layer.set_processor(Keeping(kept))
    read(model, latents, None)
    return [k[len(latents) :] for k in kept]


def averaged(layers: Sequence[torch.Tensor], shape: tuple[int, int]) -> torch.Tensor:
    """Columns of each word, averaged over its tokens and the layers of a shape."""
    fitting = [layer for layer in layers if layer.shape[1] == shape[0] * shape[1]]
    rows = foci(tiny.tokenizer(), PROMPTS, NAMED)
    out = torch.zeros(2, 2, *shape)
    for image, named in enumerate(NAMED):
        for place in range(len(named)):
            columns = rows[image, place] > 0
            means = [layer[image, :, columns].mean(1) for layer in fitting]
            out[image, place] = torch.stack(means).mean(0).view(shape)
    return out


@pytest.mark.parametrize(
    ("sizes", "shapes"),
    [
        ("auto", [(16, 18)]),
        ("all", [(16, 18), (8, 9)]),
        ((8,), [(8, 9)]),
        ((8, 16), [(16, 18), (8, 9)]),
    ],
)
def test_read_maps_are_the_plain_attention_of_each_word(
    sizes: Sizes, shapes: list[tuple[int, int]]
):
    model, z = tiny.model(latent_size=16), noise(2, 4, 16, 18)
    maps = maps_of(model, z, Reading(model.words(PROMPTS, NAMED), sizes=sizes))
    layers = plain("attn2", z)
    assert maps.self_attention is None
    for seen, count, shape in zip(maps.words, maps.layers, shapes, strict=True):
        torch.testing.assert_close(seen, averaged(layers, shape), atol=1e-6, rtol=1e-4)
        assert count == sum(layer.shape[1] == shape[0] * shape[1] for layer in layers) > 1
        assert seen[0].std() > 1e-4 and (seen[1, 1] == 0).all()


@pytest.mark.parametrize(("asked", "shape"), [("auto", (16, 18)), (16, (16, 18)), (8, (8, 9))])
def test_self_attention_is_the_plain_one(asked: int, shape: tuple[int, int]):
    model, z = tiny.model(latent_size=16), noise(2, 4, 16, 18)
    reading = Reading(model.words(PROMPTS, NAMED), self_attention=asked)
    seen = maps_of(model, z, reading).self_attention
    assert seen is not None and seen.shape == (2, *shape, *shape)
    pixels = shape[0] * shape[1]
    layers = [layer for layer in plain("attn1", z) if layer.shape[1] == pixels]
    expected = torch.stack(layers).mean(0)
    torch.testing.assert_close(seen.flatten(3).flatten(1, 2), expected, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(seen.sum((3, 4)), torch.ones(2, *shape))


def test_attribution_by_the_images_own_prompt_is_the_direct_map():
    model, z = tiny.model(), noise(2, 4, 8, 8)
    direct = maps_of(model, z, Reading(model.words(PROMPTS, NAMED)))
    asked = maps_of(model, z, Reading(model.words(PROMPTS, NAMED, attribution=True)))
    torch.testing.assert_close(asked.words[0], direct.words[0])


def test_words_that_the_prompt_does_not_have_are_found_by_attribution():
    model, z, absent = tiny.model(), noise(2, 4, 8, 8), [["tv", "fish"], ["table"]]
    texts = ["a tv and a fish", "a table"]
    with pytest.raises(UserError, match="'tv' is not in the prompt"):
        model.words(PROMPTS, absent)
    reading = Reading(model.words(texts, absent, attribution=True))
    seen = read(model, z, reading)
    plain = read(model, z, None)
    assert torch.equal(seen.output, plain.output) and plain.maps is None
    assert seen.maps is not None and (seen.maps.words[0][0].std((1, 2)) > 1e-5).all()
    # the keys are the other text's, the queries those of this drawing
    kept: list[torch.Tensor] = []
    states = model.condition(texts, ["", ""]).text

    class Other(Keeping):
        def __call__(self, attn, hidden_states, encoder_hidden_states=None, *rest, **more):
            Keeping.__call__(self, attn, hidden_states[2:], states)
            return AttnProcessor()(attn, hidden_states, encoder_hidden_states)

    by_hand = tiny.model()
    for name, layer in by_hand.unet.named_modules():
        if name.endswith("attn2") and not name.startswith("mid_block"):
            layer.set_processor(Other(kept))
    read(by_hand, z, None)
    fitting = torch.stack([layer for layer in kept if layer.shape[1] == 64]).mean(0)
    expected = fitting[1, :, foci(model.tokenizer, texts[1:], [["table"]])[0, 0] > 0].mean(1)
    got = seen.maps.words[0][1, 0].flatten()
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-4)


def test_a_guides_map_and_a_reading_share_one_forward():
    model, z = tiny.model(), noise(1, 4, 8, 8)
    reading = Reading(model.words(["a photo of river"], [["river"]]), sizes=(8,))
    level = Solver(model.scheduler, 4).levels[1]
    conditioning = model.condition(["a photo of river"], ["river"])
    calls: list[int] = []
    hook = model.unet.register_forward_hook(lambda *_: calls.append(1))
    seen = model.denoise(z, conditioning, level, 7.5, True, reading)
    hook.remove()
    assert len(calls) == 1 and seen.maps is not None and seen.attention is not None
    torch.testing.assert_close(seen.maps.words[0][:, 0], seen.attention)


def test_what_an_image_looks_like_to_a_word_does_not_depend_on_its_batch():
    model, z = tiny.model(latent_size=16), noise(2, 4, 16, 16)
    together, alone = (
        maps_of(
            model,
            z[:count],
            Reading(model.words(PROMPTS[:count], NAMED[:count]), sizes="all", self_attention=8),
        )
        for count in (2, 1)
    )
    for both, one in zip(together.words, alone.words, strict=True):
        torch.testing.assert_close(both[:1], one)
    assert together.self_attention is not None and alone.self_attention is not None
    torch.testing.assert_close(together.self_attention[:1], alone.self_attention)


def test_only_the_half_with_the_prompt_is_read():
    model, z = tiny.model(), noise(2, 4, 8, 8)
    reading = Reading(model.words(PROMPTS, NAMED), self_attention=8)
    level = Solver(model.scheduler, 4).levels[1]
    alone, half = (
        model.denoise(z, model.condition(PROMPTS, ["", ""], "a tv"), level, scale, False, reading)
        for scale in (1.0, 7.5)
    )
    assert alone.maps is not None and half.maps is not None
    torch.testing.assert_close(alone.maps.words[0], half.maps.words[0])
    own = alone.maps.self_attention, half.maps.self_attention
    torch.testing.assert_close(*own)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sizes": (8, 6)}, "no text attention at 6 pixels"),
        ({"self_attention": 5}, "no self-attention at 5 pixels"),
    ],
)
def test_sizes_that_no_layer_has_are_said(change: dict, said: str):
    model = tiny.model()
    with pytest.raises(UserError, match=said):
        read(model, noise(2, 4, 8, 8), Reading(model.words(PROMPTS, NAMED), **change))


@pytest.mark.parametrize("steps", [1.0, -0.1, (0.5, 0.5), (0.6, 0.4), (0.0, 1.1)])
def test_steps_that_are_no_shares_are_said(steps: Steps):
    with pytest.raises(UserError, match="attention is to be read at"):
        Reading(Words(torch.zeros(1, 1, 4)), steps)


@pytest.mark.parametrize(
    ("steps", "count", "read_at"),
    [
        (0.5, 10, [5]),
        (0.5, 7, [3]),
        (0.5, 1, [0]),
        (0.29, 100, [29]),
        (0.0, 4, [0]),
        ((0.0, 1.0), 3, [0, 1, 2]),
        ((0.3, 0.7), 10, [3, 4, 5, 6]),
    ],
)
def test_steps_are_shares_of_all(steps: Steps, count: int, read_at: list[int]):
    reading = Reading(Words(torch.zeros(1, 1, 4)), steps)
    levels = [Level(i, count, torch.tensor(0), 1.0, 0.0, "epsilon") for i in range(count)]
    assert [level.index for level in levels if reading.at(level)] == read_at


@pytest.mark.parametrize(
    ("latents", "maps"), [(8, 8), (16, 16), (24, 24), (32, 16), (64, 16), (96, 24), (65, 17)]
)
def test_masks_are_read_where_layers_are_about_16_high(latents: int, maps: int):
    assert height_of_layers(latents, Reading.LEAST) == maps
    assert height_of_layers(latents, maps + 1) in (latents, 2 * maps, 2 * maps - 1)
