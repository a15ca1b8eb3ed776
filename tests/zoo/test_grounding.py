"""The loss that tells class words where they are."""

import torch

import tiny
from activegen.diffusion.attention import Recorder
from activegen.zoo.grounding import Grounding

WORDINGS = {"forest": ("a forest",), "river": ("a river", "a table river")}
CAPTION = "a photo of a forest, a table river"


def grounding() -> Grounding:
    return Grounding(tiny.tokenizer(), [CAPTION], WORDINGS, 8)


def lost(loss: Grounding, maps: list[torch.Tensor], mask: torch.Tensor, weight: float = 1.0):
    return loss.loss(torch.stack(maps)[None], [CAPTION], mask[None], torch.tensor([weight]))


def test_attention_inside_costs_nothing_and_outside_all():
    left = torch.zeros(8, 8)
    left[:, :4] = 0.1
    mask = (left == 0).long().repeat_interleave(4, 0).repeat_interleave(4, 1)  # forest is left
    assert float(lost(grounding(), [left, left.flip(1)], mask)) == 0
    torch.testing.assert_close(lost(grounding(), [left.flip(1), left], mask), torch.tensor(1.0))
    even = torch.full((8, 8), 0.02)
    torch.testing.assert_close(lost(grounding(), [even, even], mask), torch.tensor(0.25))
    torch.testing.assert_close(lost(grounding(), [even, even], mask, 0.5), torch.tensor(0.125))


def test_a_caption_without_words_costs_nothing():
    loss = grounding()
    assert loss._found("") == {}
    assert list(loss._found(CAPTION)) == [0, 1]
    assert len(loss._found(CAPTION)[1]) == 2  # the longest wording


def test_its_gradient_moves_attention_to_where_the_word_is():
    model = tiny.model()
    unet = model.unet.requires_grad_(True).train()
    recorder, loss = Recorder(unet), grounding()
    mask = torch.zeros(1, 16, 16, dtype=torch.long)
    mask[:, :, 8:] = 1
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    text = model.condition([CAPTION], [""]).text
    optimiser = torch.optim.Adam(unet.parameters(), 3e-3)
    costs = []
    for _ in range(8):
        heard = loss.hearing([CAPTION], "cpu")
        with recorder.listening(heard):
            unet(latents, 500, text)
        cost = loss.loss(heard.maps().words[0], [CAPTION], mask, torch.ones(1))
        optimiser.zero_grad()
        cost.backward()
        optimiser.step()
        costs.append(cost.item())
    assert costs[-1] < 0.8 * costs[0]
