"""The U-Net: down to a small latent grid, back up beside its own past, told time and label at every block."""

from __future__ import annotations

import copy
import math
from collections import Counter
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import Attention, Conditioning, Downsample, ResBlock, Upsample, group_norm, zero_init


@dataclass(frozen=True)
class UNetConfig:
    """What a U-Net is made of.

    image_size: height and width in pixels; must be a multiple of patch * 2^(levels - 1).
    channels: 1 or 3 (any number works). num_classes: 0 for no labels.
    width: channels at the finest level; multipliers: times width, one for each level.
    blocks: residual blocks a level on the way down (one more on the way up).
    attention: the levels that attend, 0 the finest; the middle always does. head_dim: channels a head.
    patch: 1 works on pixels, 2 folds each 2x2 patch into channels first, four times cheaper.
    modulation: how blocks hear time and label, "scale_shift" or "add".
    """

    image_size: int = 28
    channels: int = 1
    num_classes: int = 0
    width: int = 64
    multipliers: tuple[int, ...] = (1, 2)
    blocks: int = 2
    attention: tuple[int, ...] = (1,)
    head_dim: int = 32
    patch: int = 1
    dropout: float = 0.0
    modulation: str = "scale_shift"

    def __post_init__(self):
        # JSON has no tuples: a config read back from a checkpoint must equal the one that was saved
        object.__setattr__(self, "multipliers", tuple(self.multipliers))
        object.__setattr__(self, "attention", tuple(self.attention))
        for name in ("channels", "width", "blocks", "patch", "head_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.width % 2:
            raise ValueError(f"width must be even, for a sine and a cosine each, got {self.width}")
        if self.num_classes < 0:
            raise ValueError(f"num_classes must be 0 (no labels) or more, got {self.num_classes}")
        if not self.multipliers or min(self.multipliers) < 1:
            raise ValueError(
                f"multipliers must be one whole number of at least 1 a level, got {self.multipliers}"
            )
        if not set(self.attention) <= set(range(len(self.multipliers))):
            raise ValueError(
                f"attention names levels from 0 to {len(self.multipliers) - 1}, got {self.attention}"
            )
        factor = self.patch * 2 ** (len(self.multipliers) - 1)
        if self.image_size < 1 or self.image_size % factor:
            near = max(factor, round(self.image_size / factor) * factor)
            raise ValueError(
                f"image size {self.image_size} is not a multiple of {factor} (patch {self.patch}, "
                f"{len(self.multipliers)} levels): resize to {near}, or use fewer levels"
            )
        if self.modulation not in ("scale_shift", "add"):
            raise ValueError(f"unknown modulation {self.modulation!r}: choose 'scale_shift' or 'add'")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {self.dropout}")


class UNet(nn.Module):
    """A U-Net (Ronneberger et al. 2015, arXiv 1505.04597) as DDPM builds it (arXiv 2006.11239, appendix B).

    forward: x (B, C, H, W), logsnr (B,), label (B,) or None -> (B, C, H, W). A fresh net answers 0.
    """

    def __init__(self, config: UNetConfig):
        super().__init__()
        self.config = config
        told = 4 * config.width
        self.conditioning = Conditioning(config.width, told, config.num_classes)
        widths = [config.width * multiplier for multiplier in config.multipliers]
        pixels = config.channels * config.patch**2

        def block(channels: int, out: int) -> ResBlock:
            return ResBlock(channels, out, told, config.dropout, config.modulation)

        def attend(level: int) -> nn.Module:
            return Attention(widths[level], config.head_dim) if level in config.attention else nn.Identity()

        self.stem = nn.Conv2d(pixels, widths[0], 3, padding=1)
        self.down, skips, now = nn.ModuleList(), [widths[0]], widths[0]
        for level, width in enumerate(widths):
            for _ in range(config.blocks):
                self.down.append(nn.ModuleList([block(now, width), attend(level)]))
                now = width
                skips.append(now)
            if level + 1 < len(widths):
                self.down.append(Downsample(now))
                skips.append(now)

        self.middle = nn.ModuleList([block(now, now), Attention(now, config.head_dim), block(now, now)])

        self.up = nn.ModuleList()
        for level, width in reversed(list(enumerate(widths))):
            for _ in range(config.blocks + 1):
                self.up.append(nn.ModuleList([block(now + skips.pop(), width), attend(level)]))
                now = width
            if level > 0:
                self.up.append(Upsample(now))

        self.head = nn.Sequential(group_norm(now), nn.SiLU(), zero_init(nn.Conv2d(now, pixels, 3, padding=1)))

    def forward(self, x: Tensor, logsnr: Tensor, label: Tensor | None = None) -> Tensor:
        """x (B, C, H, W), logsnr (B,), label (B,) whole numbers, -1 or None for no label -> (B, C, H, W)."""
        told = self.conditioning(logsnr, label)
        h = self.stem(F.pixel_unshuffle(x, self.config.patch))
        skips = [h]
        for layer in self.down:
            h = _apply(layer, h, told)
            skips.append(h)
        before, attention, after = self.middle
        h = after(attention(before(h, told)), told)
        for layer in self.up:
            h = (
                layer(h)
                if isinstance(layer, Upsample)
                else _apply(layer, torch.cat([h, skips.pop()], dim=1), told)
            )
        return F.pixel_shuffle(self.head(h), self.config.patch)


def _apply(layer: nn.Module, h: Tensor, told: Tensor) -> Tensor:
    if isinstance(layer, Downsample):
        return layer(h)
    block, attention = layer
    return attention(block(h, told))


def ddpm_cifar10(num_classes: int = 0) -> UNetConfig:
    """The 35.7 M parameter network of DDPM for CIFAR-10 (arXiv 2006.11239, appendix B)."""
    return UNetConfig(32, 3, num_classes, 128, (1, 2, 2, 2), 2, (1,), 256, 1, 0.1, "add")


@dataclass(frozen=True)
class Part:
    """A part of a U-Net as data pass it, and what it costs for one image.

    name: of the module in the network, "down.3.0". kind: "told" (time and label), "stem", "block", "attention",
    "down", "up" or "head". level: 0 the finest; -1 for "told", which has no grid. given, made: the shapes of its
    input and its output, without the batch. skip: the name of the part whose output is joined to the input, or "".
    parameters: its weights and biases. macs: multiply-adds of convolutions, linear layers and attention;
    norms, activations and additions are left out.
    """

    name: str
    kind: str
    level: int
    given: tuple[int, ...]
    made: tuple[int, ...]
    skip: str
    parameters: int
    macs: int


KINDS = {Conditioning: "told", ResBlock: "block", Attention: "attention", Downsample: "down", Upsample: "up"}


def anatomy(net: UNet, size: int | None = None) -> list[Part]:
    """The parts of a U-Net in the order in which data pass them, measured while a picture passes.

    size: height and width of the picture, by default the one that the net was made for. The picture has no
    values and the weights are not touched: shapes are all that is computed. Raises ValueError for a size that the net cannot take.
    """
    config = net.config if size is None else replace(net.config, image_size=size)
    net = copy.deepcopy(net).to("meta", torch.float32)
    passed: list[tuple] = []
    macs: Counter[str] = Counter()

    def note(name: str, kind: str):
        def hook(module, given, made):
            count = sum(parameter.numel() for parameter in module.parameters())
            passed.append((name, kind, tuple(given[0].shape[1:]), tuple(made.shape[1:]), count))

        return hook

    def count(name: str):
        def hook(module, given, made):
            if isinstance(module, Attention):  # queries times keys, and weights times values
                macs[name] += 2 * made.shape[1] * made.shape[2:].numel() ** 2
            else:
                macs[name] += made.numel() * module.weight[0].numel()

        return hook

    for name, module in net.named_modules():
        kind = name if name in ("stem", "head") else KINDS.get(type(module))
        if kind:
            module.register_forward_hook(note(name, kind))
            for layer in module.modules():
                if isinstance(layer, nn.Conv2d | nn.Linear | Attention):
                    layer.register_forward_hook(count(name))
    side = config.image_size
    net(torch.empty(1, config.channels, side, side, device="meta"), torch.empty(1, device="meta"))

    fine, skips, parts = side // config.patch, _skips(name for name, *_ in passed), []
    for name, kind, given, made, parameters in passed:
        level = -1 if kind == "told" else round(math.log2(fine / made[-1]))
        parts.append(Part(name, kind, level, given, made, skips.get(name, ""), parameters, macs[name]))
    return parts


def _skips(names) -> dict[str, str]:
    """Block on the way up -> the part on the way down whose output it is given, as in UNet.forward."""
    last: dict[str, str] = {}  # the last part of each step down
    ways = {}
    for name in names:
        step = ".".join(name.split(".")[:2])
        if name == "stem" or name.startswith("down."):
            last[step] = name
        elif name.startswith("up.") and name.endswith(".0"):
            ways[name] = last.popitem()[1]
    return ways
