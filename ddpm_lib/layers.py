"""The parts of the networks: embeddings of time and label, residual blocks, attention, resizing."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

DENSE_FROM = 256
"""Positions from which attention on a CPU copies its rows: below, the weights are few and the copy buys nothing."""


def zero_init(module: nn.Module) -> nn.Module:
    """The module with its weights and bias set to 0, so that what it adds starts as nothing."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm with up to 32 groups (arXiv 1803.08494), as many as divide the channels into two or more each:
    a channel alone in its group would lose all that a block adds to it, the time among it."""
    groups = math.gcd(32, channels)
    return nn.GroupNorm(groups // 2 if groups == channels > 1 else groups, channels)


def time_features(logsnr: Tensor, width: int) -> Tensor:
    """Sines and cosines of log-SNR at width / 2 frequencies, from slow to quick; (B,) -> (B, width).

    The slowest tell where on the whole range of -20 to 20 we are, the quickest tell neighbours apart
    (the sinusoidal embedding of arXiv 1706.03762, section 3.5, at frequencies that fit log-SNR).
    """
    frequencies = torch.exp(torch.linspace(math.log(0.05), math.log(5.0), width // 2, device=logsnr.device))
    angles = logsnr.clamp(-20, 20)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class Conditioning(nn.Module):
    """Time, and the label if there is one, as one vector: features -> MLP, plus the label's embedding.

    num_classes: 0 for a network without labels. The last row of the label table is the null label.
    """

    def __init__(self, width: int, out: int, num_classes: int = 0):
        super().__init__()
        self.width = width
        self.mlp = nn.Sequential(nn.Linear(width, out), nn.SiLU(), nn.Linear(out, out))
        self.label = nn.Embedding(num_classes + 1, out) if num_classes else None
        self.null = num_classes

    def forward(self, logsnr: Tensor, label: Tensor | None = None) -> Tensor:
        """logsnr (B,), label (B,) whole numbers, -1 or None for no label -> (B, out)."""
        vector = self.mlp(time_features(logsnr, self.width))
        if self.label is None:
            if label is not None and bool((label >= 0).any()):
                raise ValueError("this network was made without labels (num_classes=0): pass label=None")
            return vector
        if label is None:
            label = torch.full_like(logsnr, -1, dtype=torch.long)
        # on an accelerator, or in a graph that is being traced, asking for the values would cost a wait
        elif (
            label.device.type == "cpu"
            and not torch.compiler.is_compiling()
            and bool((label >= self.null).any())
        ):
            raise ValueError(
                f"label {int(label.max())} is out of range: this network knows 0 to {self.null - 1}, and -1 for none"
            )
        return vector + self.label(torch.where(label < 0, self.null, label))


class ResBlock(nn.Module):
    """Norm, SiLU, convolution, twice, with the conditioning vector let in between; plus the input.

    modulation: "add" adds the vector's projection (arXiv 2006.11239), "scale_shift" scales and shifts
    the second norm by it (arXiv 2105.05233). A fresh block of equal channels is the identity.
    """

    def __init__(
        self, channels: int, out: int, condition: int, dropout: float = 0.0, modulation: str = "scale_shift"
    ):
        super().__init__()
        self.modulation = modulation
        self.norm_in, self.norm_out = group_norm(channels), group_norm(out)
        self.conv_in = nn.Conv2d(channels, out, 3, padding=1)
        self.condition = nn.Linear(condition, out * (2 if modulation == "scale_shift" else 1))
        self.dropout = nn.Dropout(dropout)
        self.conv_out = zero_init(nn.Conv2d(out, out, 3, padding=1))
        self.skip = nn.Conv2d(channels, out, 1) if channels != out else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x (B, C, H, W), condition (B, D) -> (B, out, H, W)."""
        h = self.conv_in(F.silu(self.norm_in(x)))
        told = self.condition(F.silu(condition))[:, :, None, None]
        if self.modulation == "scale_shift":
            scale, shift = told.chunk(2, dim=1)
            h = torch.addcmul(shift, self.norm_out(h), 1 + scale)
        else:
            h = self.norm_out(h + told)
        return self.skip(x) + self.conv_out(self.dropout(F.silu(h)))


class Attention(nn.Module):
    """Self-attention over all positions of an image of any height and width; plus the input.

    (B, C, H, W) -> same; C must be a multiple of head_dim. A fresh layer is the identity.
    """

    def __init__(self, channels: int, head_dim: int = 32):
        super().__init__()
        if channels % head_dim:
            raise ValueError(
                f"attention over {channels} channels cannot be cut into heads of {head_dim}: choose a divisor"
            )
        self.heads = channels // head_dim
        self.norm = group_norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zero_init(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        qkv = rearrange(self.qkv(self.norm(x)), "b (n h d) y x -> n b h (y x) d", n=3, h=self.heads)
        # torch's kernels that hold no weights take dense rows only; small grids on a CPU are as quick without
        if x.is_cuda or x.shape[2] * x.shape[3] >= DENSE_FROM:
            qkv = qkv.contiguous()
        mixed = F.scaled_dot_product_attention(*qkv)
        return x + self.out(rearrange(mixed, "b h (y x) d -> b (h d) y x", y=x.shape[2]))


class Downsample(nn.Conv2d):
    """Halves height and width by a 3x3 convolution of stride 2; (B, C, H, W) -> (B, C, H/2, W/2)."""

    def __init__(self, channels: int):
        super().__init__(channels, channels, 3, stride=2, padding=1)


class Upsample(nn.Conv2d):
    """Doubles height and width by repeating pixels, then a 3x3 convolution; (B, C, H, W) -> (B, C, 2H, 2W)."""

    def __init__(self, channels: int):
        super().__init__(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, 2H, 2W)."""
        return super().forward(F.interpolate(x, scale_factor=2.0, mode="nearest"))
