"""A training that can stop and go on, in one process or several."""

import copy
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from activegen.precision import mixed_precision


@contextmanager
def whole(file: Path) -> Iterator[Path]:
    """A name to write to; the file is there when all of it is written."""
    partial = file.with_name(f"partial-{file.name}")
    yield partial
    partial.replace(file)


class Run:
    """One training: AdamW, warm-up and cosine, an exponential average, a state to resume from.

    Every batch is drawn from a generator seeded with its place among all images, so nothing but
    the weights and the optimiser needs to be kept. Under ``torchrun`` each process draws its own
    batches and gradients are averaged; the first process alone writes.

    Args:
        name: of the state's file.
        models: what is trained.
        work: folder of the state.
        images: to see in all.
        batch: images of a step and process.
        rate: highest learning rate.
        device: of the models.
    """

    def __init__(
        self,
        name: str,
        models: dict[str, nn.Module],
        work: Path,
        images: int,
        batch: int,
        rate: float,
        device: str,
    ):
        self.name, self.models, self.batch, self.device = name, models, batch, device
        self.total, self.rate = images, rate
        spread = dist.is_initialized()
        self.rank, self.processes = (dist.get_rank(), dist.get_world_size()) if spread else (0, 1)
        self.file = work / f"{name}.pt"
        parameters = [p for model in models.values() for p in model.parameters()]
        self.optimiser = torch.optim.AdamW(
            parameters, lr=rate, betas=(0.9, 0.99), weight_decay=0.01
        )
        self.average = EMAModel(
            parameters, decay=0.999, use_ema_warmup=True, inv_gamma=10, power=0.8
        )
        self.parameters, self.seen, self.step = parameters, 0, 0
        if self.file.exists():
            # each model brings its part to the device; AdamW's step counts stay on the CPU
            state = torch.load(self.file, map_location="cpu", weights_only=True)
            for key, model in models.items():
                model.load_state_dict(state["models"][key])
            self.optimiser.load_state_dict(state["optimiser"])
            self.average.load_state_dict(state["average"])
            self.average.to(device)
            self.seen, self.step = state["seen"], state["step"]

    def autocast(self) -> torch.autocast:
        """To bfloat16 where it is fast; the weights stay float32."""
        return mixed_precision(self.device)

    def steps(self) -> Iterator[torch.Generator]:
        """A generator per step until the end; prints twice a minute and saves every five."""
        self.losses: list[dict[str, float]] = []
        printed, saved, since = time.time(), time.time(), self.seen
        while self.seen < self.total:
            yield torch.Generator().manual_seed(self.seen + self.rank)
            self.seen += self.batch * self.processes
            self.step += 1
            if time.time() - printed > 30 and self.rank == 0:
                rate = (self.seen - since) / (time.time() - printed)
                mean = {
                    k: round(sum(x[k] for x in self.losses) / len(self.losses), 4)
                    for k in self.losses[0]
                }
                print(self.name, self.seen, f"{rate:.0f}/s", mean, flush=True)
                printed, since, self.losses = time.time(), self.seen, []
            if time.time() - saved > 300:
                self.save()
                saved = time.time()
        self.save()

    def update(self, loss: Tensor, report: dict[str, float]) -> None:
        """One optimiser step; a loss that is not finite stops the training."""
        if not math.isfinite(loss.item()):
            raise RuntimeError(f"{self.name}: the loss is {loss.item()} at step {self.step}")
        done = self.seen / self.total
        factor = min(1.0, (self.step + 1) / 300) * 0.5 * (1 + math.cos(math.pi * done))
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate * max(factor, 0.01)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self._share()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimiser.step()
        self.average.step(self.parameters)
        self.losses.append(report)

    def _share(self) -> None:
        """Average the gradients over the processes."""
        if self.processes == 1:
            return
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        for g, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            g.copy_(part.view_as(g) / self.processes)

    def save(self) -> None:
        """Whole or not at all."""
        if self.rank:
            return
        state = {
            "models": {key: model.state_dict() for key, model in self.models.items()},
            "optimiser": self.optimiser.state_dict(),
            "average": self.average.state_dict(),
            "seen": self.seen,
            "step": self.step,
        }
        with whole(self.file) as file:
            torch.save(state, file)

    def averaged(self) -> dict[str, nn.Module]:
        """Copies of the models with the averaged weights."""
        with self._swapped():
            return {key: copy.deepcopy(model) for key, model in self.models.items()}

    @contextmanager
    def _swapped(self) -> Iterator[None]:
        self.average.store(self.parameters)
        self.average.copy_to(self.parameters)
        yield
        self.average.restore(self.parameters)
