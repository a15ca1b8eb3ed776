"""Words by token ids; maps against diffusers' own attention probabilities."""

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor

import tiny
from activegen.diffusion.attention import find_tokens, focus, normalised, resized
from activegen.diffusion.levels import Solver
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


def test_every_occurrence_counts_once():
    assert find_tokens([7, 7, 7, 1], [7, 7]) == [0, 1, 2]
    assert find_tokens([1, 2, 3, 1, 2], [1, 2]) == [0, 1, 3, 4]
    assert find_tokens([1, 2], [1, 2, 3]) == []
    (row,) = focus(tiny.tokenizer(), ["river, river"], ["river"])
    assert row.sum().item() == pytest.approx(1)
    assert (row > 0).sum() == 2


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
    """Diffusers' plain processor, and the probabilities that ``get_attention_scores`` gives it."""

    def __init__(self, kept: list[torch.Tensor]):
        super().__init__()
        self.kept = kept

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, *rest, **more):
        query = attn.head_to_batch_dim(attn.to_q(hidden_states))
        key = attn.head_to_batch_dim(attn.to_k(encoder_hidden_states))
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
