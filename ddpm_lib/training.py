"""The training loop: a generator that yields after each optimiser step.

Everything random in step k is drawn from a generator seeded by (seed, k). So a run has no random state
to save: started again at step k it does exactly what it would have done, and N processes that each
take their part of the same draws do together what one would.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist
from torch import Tensor, nn

from .denoiser import Denoiser, coefficients
from .muon import Muon
from .schedule import PATHS, Schedule
from .settings import TrainConfig

DECAYS: dict[str, Callable[[float], float]] = {
    "none": lambda progress: 1.0,
    "linear": lambda progress: 1 - progress,
    "cosine": lambda progress: (1 + math.cos(math.pi * progress)) / 2,
}
TIMES: dict[str, Callable[[Tensor], Tensor]] = {
    "uniform": lambda u: u,
    "logit-normal": lambda u: torch.sigmoid(torch.special.ndtri(u)),
}
"""How training times spread over (0, 1), as a function of a uniform draw (logit-normal: arXiv 2403.03206)."""
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": lambda net, **options: torch.optim.Adam(net.parameters(), **options),
    "muon": Muon,
}
"""Optimisers: (net, lr, betas, fused) -> optimizer."""


@dataclass(frozen=True, eq=False)
class TrainStep:
    """What train yields: the number of steps done, the mean loss and the gradient norm of this step (0-d
    tensors, so that a GPU need not wait for them), the learning rate used, and images seen so far."""

    index: int
    loss: Tensor
    grad_norm: Tensor
    lr: float
    images: int


class TrainingDiverged(ValueError):
    """The loss or a gradient is no longer a number."""


def bare(net: nn.Module) -> nn.Module:
    """The network itself, out of the wrappers of torch.compile, DataParallel and DistributedDataParallel.

    A wrapper has the same weights under other names, such as "_orig_mod.stem.weight", and no config.
    """
    while True:
        if isinstance(net, nn.DataParallel | nn.parallel.DistributedDataParallel):
            net = net.module
        # known by its part: torch._dynamo, where the class of compiled networks is, takes a second to import
        elif "_orig_mod" in dict(net.named_children()):
            net = net._orig_mod
        else:
            return net


class EMA:
    """A slow copy of a network: an exponential moving average of its weights.

    net: the network, or a wrapper of it, see bare: the copy is of the network itself.
    half_life: steps after which a weight counts half. Early on the average is shorter, so that it does
    not remember the untrained network: decay = min(2^(-1 / half_life), (1 + n) / (10 + n)) at update n.
    """

    def __init__(self, net: nn.Module, half_life: float = 1_000):
        if not half_life > 0:
            raise ValueError(f"half_life must be positive, got {half_life}")
        self.net = copy.deepcopy(bare(net)).requires_grad_(False).eval()
        self.half_life, self.updates = half_life, 0

    @torch.no_grad()
    def update(self, net: nn.Module) -> None:
        """Moves the average towards net's present weights; buffers are copied."""
        decay = min(0.5 ** (1 / self.half_life), (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(list(self.net.parameters()), [p.data for p in net.parameters()], 1 - decay)
        for mine, theirs in zip(self.net.buffers(), net.buffers(), strict=True):
            mine.copy_(theirs)
        self.updates += 1


def make_optimizer(net: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimiser as train uses it: Adam (arXiv 1412.6980) or Muon."""
    return OPTIMIZERS[config.optimizer](net, lr=config.lr, betas=(0.9, 0.99), fused=_on_cuda(net))


def train(
    denoiser: Denoiser,
    batches: Iterable[tuple[Tensor, Tensor | None]],
    config: TrainConfig,
    ema: EMA | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    start: int = 0,
) -> Iterator[TrainStep]:
    """Trains denoiser.net in place; yields a TrainStep after each of the steps start + 1 ... config.steps.

    batches: (images (B, C, H, W) in [-1, 1], labels (B,) or None), from batch number `start` on, see
    data.batches. optimizer: to resume with, see make_optimizer. Under torchrun the gradients are
    averaged over all processes, and each process draws its share of the global batch's noise.

    Raises TrainingDiverged, before the weights are touched, if loss or gradients are not finite
    (on a GPU it looks every 50 steps, so as not to wait for each).
    """
    net = denoiser.net
    device = next(net.parameters()).device
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    optimizer = optimizer or make_optimizer(net, config)
    bf16 = resolve_precision(config.precision, device) == "bf16"
    forward = torch.compile(net) if config.compile else net
    if world > 1:
        forward = nn.parallel.DistributedDataParallel(forward)
    learner = replace(denoiser, net=forward)
    weight = min_snr(config.min_snr, denoiser) if config.min_snr else None
    dropout = any(isinstance(module, nn.Dropout) and module.p > 0 for module in net.modules())

    for index, (x0, label) in zip(range(start, config.steps), batches, strict=False):
        net.train()
        count = len(x0) * world
        # one stream in turn for times, dropout and noise: streams of equal seed would tie them together
        generator = step_generator(config.seed, index)
        t = sample_times(denoiser.schedule, count, config.times, generator)
        t = t.to(device, torch.float32 if device.type == "mps" else torch.float64)
        dropout_seed = int(torch.randint(2**62, (), generator=generator)) + rank
        generator = generator if device.type == "cpu" else step_generator(config.seed, index, device)
        eps = torch.randn(count, *x0.shape[1:], generator=generator, device=device)
        dropped = torch.rand(count, generator=generator, device=device) < config.label_dropout
        t, eps, dropped = (drawn[rank::world] for drawn in (t, eps, dropped))
        if label is not None:
            label = torch.where(dropped, -1, label)

        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, index)
        # before the forward pass: the last step's gradients need not lie beside this one's activations
        optimizer.zero_grad(set_to_none=True)
        with _seeded(dropout_seed, device) if dropout else nullcontext():
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                loss = learner.loss(x0, t, eps, label, weight).mean()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(net.parameters(), config.clip or math.inf)
        if device.type != "cuda" or index % 50 == 0:
            _check_finite(loss, norm, index + 1, config.lr)
        optimizer.step()
        if ema is not None:
            ema.update(net)
        yield TrainStep(index + 1, loss.detach(), norm, learning_rate(config, index), (index + 1) * count)
        start = index + 1
    if start < config.steps:
        raise ValueError(
            f"the batches ran out after {start} of {config.steps} steps: data.batches never ends, "
            "a list or a DataLoader does; wrap it in itertools.cycle"
        )


def sample_times(
    schedule: Schedule, count: int, times: str, generator: torch.Generator | None = None
) -> Tensor:
    """count training times in (0, 1], (count,) float64: on a chain, knots t / T with t in 1..T.

    Stratified: one draw shifts an evenly spaced comb, in random order, so that each time has the law it
    should and the mean loss varies less (arXiv 2107.00630, appendix I.1).
    """
    shift = torch.rand((), generator=generator, dtype=torch.float64)
    comb = (torch.randperm(count, generator=generator).double() + shift) / count
    t = TIMES[times](comb)
    if schedule.steps is None:
        return t.clamp(1e-4, 1 - 1e-4)
    return torch.ceil(t * schedule.steps).clamp(1, schedule.steps) / schedule.steps


def min_snr(gamma: float, denoiser: Denoiser) -> Callable[[Tensor], Tensor]:
    """Weight that makes the loss min(SNR, gamma) in x_0 space, whatever the network predicts
    (Hang et al. 2023, arXiv 2303.09556): divided by the weight that the target has there by itself."""

    def weight(logsnr: Tensor) -> Tensor:
        a, s = PATHS[denoiser.schedule.path](logsnr)
        p, q = coefficients(denoiser.predict, a, s)
        return logsnr.exp().clamp(max=gamma) / ((a * q - s * p) / s).square()

    return weight


def learning_rate(config: TrainConfig, index: int) -> float:
    """The learning rate of step number index, counted from 0: linear warm-up, then the decay."""
    if index < config.warmup:
        return config.lr * (index + 1) / config.warmup
    progress = (index - config.warmup) / max(config.steps - config.warmup, 1)
    return config.lr * DECAYS[config.decay](progress)


def step_generator(seed: int, index: int, device: str | torch.device = "cpu") -> torch.Generator:
    """The generator of one step, a function of (seed, index) alone."""
    return torch.Generator(device).manual_seed((seed * 1_000_003 + index) % 2**63)


def resolve_precision(precision: str, device: torch.device) -> str:
    """ "fp32" or "bf16". For "auto": bf16 on a GPU that has it, and on a CPU where a trial is at least 1.2x quicker."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if device.type == "cpu" and bf16_slowdown() < 1 / 1.2 else "fp32"


def bf16_slowdown() -> float:
    """How many times as long as in fp32 a convolution takes in bf16 on this processor, by a trial.

    About 0.6 where the processor has bf16. Where it has not, torch emulates it: 10 and far more.
    """
    conv, x = nn.Conv2d(64, 64, 3, padding=1), torch.randn(32, 64, 14, 14)
    seconds = {False: math.inf, True: math.inf}
    for enabled in (False, True) * 4:
        began = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            conv(x).float().sum().backward()
        seconds[enabled] = min(seconds[enabled], time.perf_counter() - began)
        # emulated: each further round takes half a second and says the same
        if enabled and seconds[True] > 10 * seconds[False]:
            break
    return seconds[True] / seconds[False]


def _check_finite(loss: Tensor, norm: Tensor, step: int, lr: float) -> None:
    if not (math.isfinite(loss.item()) and math.isfinite(norm.item())):
        raise TrainingDiverged(
            f"step {step}: loss is {loss.item():.3g}, gradient norm {norm.item():.3g}; training cannot go on. Likely causes: "
            f"learning rate too high (it is {lr:g}; try a third), images not in [-1, 1], a weight that divides by zero"
        )


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """nn.Dropout draws from the global generator: seed it for one step, and leave it as it was."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _on_cuda(net: nn.Module) -> bool:
    return next(net.parameters()).is_cuda
