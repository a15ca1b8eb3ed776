"""What is trained, and the loss, where both are known in closed form."""

import math
from types import SimpleNamespace

import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor, nn

import tiny
from activegen.diffusion import lora
from activegen.diffusion.adapting import (
    Denoising,
    Reconstruction,
    adapt_control,
    adapt_full,
    adapt_lora,
    save_model,
    tokenised,
)
from activegen.diffusion.control import Control
from activegen.diffusion.stable_diffusion import StableDiffusion
from activegen.records import UserError


def batch(model: StableDiffusion, count: int = 3) -> tuple[Tensor, ...]:
    rng = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, count, *model.noise_shape, generator=rng)
    level = torch.tensor([10, 500, 990])[:count]
    return clean, noise, level, *tokenised(model.tokenizer, ["a photo of forest"] * count)


class Says(nn.Module):
    """A denoiser that says the same to everything."""

    def __init__(self, answer: Tensor):
        super().__init__()
        self.answer, self.seen = answer, torch.zeros(0)

    def forward(self, latents: Tensor, *rest: object, **more: object) -> SimpleNamespace:
        self.seen = latents
        return SimpleNamespace(sample=self.answer)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_loss_in_closed_form(prediction: str) -> None:
    model = tiny.model(prediction)
    clean, noise, level, *rest = batch(model)
    squared = model.scheduler.alphas_cumprod[level].view(-1, 1, 1, 1)
    alpha, sigma = squared.sqrt(), (1 - squared).sqrt()
    truth = noise if prediction == "epsilon" else alpha * noise - sigma * clean
    module = Denoising(model)
    module.unet = Says(truth + torch.tensor([0.0, 0.5, 2.0]).view(-1, 1, 1, 1))
    loss = module(clean, noise, level, *rest)
    torch.testing.assert_close(loss, torch.tensor([0.0, 0.25, 4.0]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(module.unet.seen, alpha * clean + sigma * noise)


def test_other_models_are_refused() -> None:
    with pytest.raises(UserError, match="inpaints, and cannot be adapted"):
        Denoising(tiny.model(channels=9))
    with pytest.raises(UserError, match="predicts 'sample' is not supported"):
        Denoising(tiny.model("sample"))


def stepped(module: nn.Module, given: tuple[Tensor, ...]) -> None:
    trained = [p for p in module.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, 1e-2, weight_decay=0.0)
    for _ in range(3):  # what is behind zeros moves later
        optimiser.zero_grad()
        module(*given).mean().backward()
        optimiser.step()


def changed(before: dict[str, Tensor], model: nn.Module) -> set[str]:
    return {name for name, x in model.state_dict().items() if not torch.equal(x, before[name])}


def copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: x.clone() for name, x in model.state_dict().items()}


def test_a_lora_moves_itself_alone() -> None:
    model = tiny.model()
    module = adapt_lora(model, 2, ("attn2.to_q", "to_v"), text_encoder=True)
    before = copied(module)
    stepped(module, batch(model))
    moved = changed(before, module)
    assert moved == {name for name in before if "lora_" in name}
    of_unet = [name for name in moved if name.startswith("unet")]
    assert all("attn2.to_q." in name or "to_v." in name for name in of_unet)
    assert any(name.startswith("text_encoder") for name in moved)


def test_a_new_lora_changes_nothing() -> None:
    given = batch(tiny.model())
    adapted = adapt_lora(tiny.model(), 2, lora.TARGETS, text_encoder=True)
    torch.testing.assert_close(adapted(*given), Denoising(tiny.model())(*given))


@pytest.mark.parametrize("text_encoder", [False, True])
def test_full_moves_all_that_is_asked(text_encoder: bool) -> None:
    model = tiny.model()
    module = adapt_full(model, text_encoder)
    before = copied(module)
    stepped(module, batch(model))
    moved = {name.split(".")[0] for name in changed(before, module)}
    assert moved == ({"unet", "text_encoder"} if text_encoder else {"unet"})


def test_a_controlnet_starts_as_nothing_and_learns_alone() -> None:
    model = tiny.model()
    given, pictures = batch(model), torch.rand(3, 3, 16, 16)
    module = adapt_control(model)
    torch.testing.assert_close(module(*given, pictures), Denoising(tiny.model())(*given))
    before = copied(module)
    stepped(module, (*given, pictures))
    assert {name.split(".")[0] for name in changed(before, module)} == {"net"}
    assert not torch.equal(module(*given, pictures), module(*given, 1 - pictures))


def test_a_controlnet_of_another_model_is_refused() -> None:
    net = tiny.controlnet(block_out_channels=(8, 16))
    with pytest.raises(UserError, match="does not fit the denoiser"):
        adapt_control(tiny.model(), Control(net))


@pytest.mark.parametrize("part", ["decoder", "whole"])
def test_reconstruction_is_the_mean_absolute_error(part: str) -> None:
    model = tiny.model()
    module = Reconstruction(model, part)
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        seen = model.full(model.encode(images))
        torch.testing.assert_close(module(images), (seen - images).abs().mean((1, 2, 3)))
    before = copied(model.vae)
    stepped(module, (images,))
    moved = {name.split(".")[0] for name in changed(before, model.vae)}
    both = {"encoder", "quant_conv", "decoder", "post_quant_conv"}
    assert moved == ({"decoder", "post_quant_conv"} if part == "decoder" else both)


@pytest.mark.parametrize(("what", "least"), [("lora", 0.95), ("full", 0.5)])
def test_loss_falls_on_one_batch(what: str, least: float) -> None:
    model = tiny.model()
    made = {
        "lora": lambda: adapt_lora(model, 4, lora.TARGETS, text_encoder=False),
        "full": lambda: adapt_full(model, text_encoder=False),
    }
    module = made[what]()
    trained = [p for p in module.parameters() if p.requires_grad]
    optimiser, given = torch.optim.AdamW(trained, 1e-2), batch(model)
    losses = []
    for _ in range(25):
        optimiser.zero_grad()
        loss = module(*given).mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert math.isfinite(losses[-1]) and losses[-1] < least * losses[0]


@pytest.mark.filterwarnings("ignore")  # diffusers' own, on loading
def test_a_saved_model_is_diffusers_and_ours(tmp_path) -> None:
    model = tiny.model("v_prediction")
    model.unet.conv_out.bias.data += 1
    save_model(tmp_path, model)
    again = StableDiffusion.load(tmp_path)
    assert torch.equal(again.unet.conv_out.bias, model.unet.conv_out.bias)
    assert again.made_by()["revision"] == model.made_by()["revision"]
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path)
    assert torch.equal(pipeline.unet.conv_out.bias, model.unet.conv_out.bias)
