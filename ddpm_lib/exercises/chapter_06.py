"""The exercises of chapter 6, with their answers and the slips that people make."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from . import Exercise, Slip

TITLE = "A U-Net you can hold in your head"


# --- unet.time_features


def _features(logsnr, width, frequencies=None, turn=1.0, order="halves"):
    count = width // 2
    if frequencies is None:
        steps = torch.arange(count, dtype=torch.float64) / (count - 1)
        frequencies = 0.05 * 100**steps
    angles = turn * logsnr[:, None] * frequencies
    sine, cosine = angles.sin(), angles.cos()
    if order == "turns":
        return torch.stack([sine, cosine], dim=2).flatten(1)
    return torch.cat([cosine, sine] if order == "swapped" else [sine, cosine], dim=1)


def _in_equal_steps(logsnr, width):
    return _features(logsnr, width, torch.linspace(0.05, 5, width // 2, dtype=torch.float64))


def _one_step_short(logsnr, width):
    count = width // 2
    return _features(logsnr, width, 0.05 * 100 ** (torch.arange(count, dtype=torch.float64) / count))


def _of_the_transformer(logsnr, width):
    count = width // 2
    return _features(logsnr, width, 10_000 ** (-torch.arange(count, dtype=torch.float64) / count))


def _periods(logsnr, width):
    count = width // 2
    return _features(logsnr, width, 1 / (0.05 * 100 ** (torch.arange(count, dtype=torch.float64) / (count - 1))))  # fmt: skip


def _feature_inputs(generator: torch.Generator) -> tuple:
    width = 2 * int(torch.randint(4, 9, (), generator=generator))
    return 20 * torch.rand(6, generator=generator, dtype=torch.float64) - 10, width


def _explain_features(arguments: tuple, got: Tensor, wanted: Tensor) -> str:
    right = ((got - wanted).abs() < 1e-5).all(0)
    half = len(right) // 2
    if right[:half].all():
        return "The sines are right, the cosines are not."
    if right[half:].all():
        return "The cosines are right, the sines are not."
    if got.abs().max() > 1 + 1e-6:
        return "Sines and cosines lie between -1 and 1. Some of yours do not."
    return f"{int(right.sum())} of the {2 * half} features are right for all log-SNRs."


# --- unet.attention


def _attention(q, k, v, heads, scale=None, axis=-1, split="(h d)", end="y x"):
    rows, columns = q.shape[2:]
    q, k, v = (rearrange(each, f"b {split} y x -> b h (y x) d", h=heads) for each in (q, k, v))
    weights = (q @ k.transpose(-2, -1) * (q.shape[-1] ** -0.5 if scale is None else scale)).softmax(axis)
    if end == "x y":
        mixed = rearrange(weights @ v, f"b h (x y) d -> b {split} y x", x=columns)
    else:
        mixed = rearrange(weights @ v, f"b h (y x) d -> b {split} y x", y=rows)
    return mixed


def _over_all_channels(q, k, v, heads):
    return _attention(q, k, v, heads, q.shape[1] ** -0.5)


def _over_the_size(q, k, v, heads):
    return _attention(q, k, v, heads, heads / q.shape[1])


def _attention_inputs(generator: torch.Generator) -> tuple:
    heads, dims = torch.randint(2, 4, (2,), generator=generator).tolist()
    dims += 2  # never as many as heads: then dividing by d and by the root of all channels is the same
    rows, more = torch.randint(2, 5, (2,), generator=generator).tolist()
    # higher than wide or wider than high, never square
    shape = (rows, rows + more) if more % 2 else (rows + more, rows)
    qkv = 1.5 * torch.randn(3, 2, heads * dims, *shape, generator=generator, dtype=torch.float64)
    return *qkv, heads


def _explain_attention(arguments: tuple, got: Tensor, wanted: Tensor) -> str:
    q, _, v, heads = arguments
    if ((got - v.mean((2, 3), keepdim=True)).abs() < 1e-5).all():
        return "All weights are equal: every position gets the mean."
    right = ((got - wanted).abs() < 1e-5).flatten(2).all(2).all(0)
    return (
        f"{int(right.sum())} of the {q.shape[1]} channels are right, with {heads} heads."
        if right.any()
        else ""
    )


# --- unet.identity


class _Residual(nn.Module):
    """x + conv(silu(norm(conv(x)))), with what a reader may do to it."""

    def __init__(self, channels: int, zero: str = "all", skip: bool = True, factor: float = 1.0):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.GroupNorm(1, channels)
        self.last = nn.Conv2d(channels, channels, 3, padding=1)
        self.skip, self.factor = skip, factor
        if zero != "nothing":
            nn.init.zeros_(self.last.weight)
        if zero == "all":
            nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor) -> Tensor:
        added = self.factor * self.last(F.silu(self.norm(self.first(x))))
        return x + added if self.skip else added


def _tried(build: Callable, arguments: tuple) -> object:
    """What the block does when fresh, and after a few steps of training: four truths."""
    block = build(*arguments)
    if block is None or block is ...:
        return block
    x, large = torch.randn(3, *arguments, 6, 5), 30 * torch.randn(2, *arguments, 3, 8)
    # copies: a block that changes its input in place must not pass for the identity
    fresh, from_large = (block(given.clone()).detach() for given in (x, large))
    for given, made in ((x, fresh), (large, from_large)):
        if made.shape != given.shape:
            raise ValueError(
                f"for x of shape {tuple(given.shape)} the block returns {tuple(made.shape)}, not the same shape"
            )
    weights = [weight for weight in block.parameters() if weight.requires_grad]
    optimizer = torch.optim.Adam(weights, lr=1e-2) if weights else None
    for _ in range(8 if weights else 0):
        optimizer.zero_grad()
        (block(x) - x.flip(3)).square().mean().backward()
        optimizer.step()
    added = fresh - x
    moved = block(x).detach() - fresh
    return (
        bool((added.abs() < 1e-6).all() and (from_large - large).abs().max() < 1e-5),
        bool((fresh.abs() < 1e-6).all()),
        bool((added.abs() > 1e-6).any() and (added.std((0, 2, 3)) < 1e-6).all()),
        bool((moved.std((0, 2, 3)) > 1e-4).any()),
    )


def _explain_identity(arguments: tuple, got: tuple, wanted: tuple) -> str:
    identity, _, _, learns = got
    if not identity:
        return "The fresh block changes its input." + ("" if learns else " And training does not move it.")
    return (
        "The fresh block is the identity, and training does not move it: does a gradient reach its weights?"
    )


# --- unet.parameters


def _count(channels, out, told, biases=1, norms=1, skip="if", modulated=2, kernel=9, swapped=False):
    first, last = kernel * channels * out + biases * out, kernel * out * out + biases * out
    if swapped:
        last = kernel * channels * channels + biases * channels
    across = channels * out + biases * out if skip == "always" or (skip == "if" and channels != out) else 0
    return first + last + across + norms * 2 * (channels + out) + modulated * (told * out + biases * out)


def _ways(channels: int, out: int) -> tuple[tuple[int, int], ...]:
    return (channels, out), (channels, channels), (out, channels)


def _counted(attempt: Callable, arguments: tuple) -> object:
    """With more channels going out than in, with the same, and with fewer."""
    channels, out, told = arguments
    counts = tuple(attempt(*ways, told) for ways in _ways(channels, out))
    if any(count is None or count is ... for count in counts):
        return None if any(count is None for count in counts) else ...
    return counts


def _count_inputs(generator: torch.Generator) -> tuple:
    channels, more, told = torch.randint(4, 33, (3,), generator=generator).tolist()
    return 2 * channels, 2 * (channels + more), 8 * told


def _explain_count(arguments: tuple, got: tuple, wanted: tuple) -> str:
    away = [int(mine - true) for mine, true in zip(got, wanted, strict=True)]
    channels, out, told = arguments
    words = [
        f"{abs(gap):,} too {'many' if gap > 0 else 'few'} for {into} channels in, {wide} out and {told} told"
        for gap, (into, wide) in zip(away, _ways(channels, out), strict=True)
        if gap
    ]
    return "It counts " + "; ".join(words) + "." if words else ""


# --- unet.memory

GROWTH = (4, 4, 16, 1)


def _explain_growth(arguments: tuple, got: tuple, wanted: tuple) -> str:
    names = ("multiply-adds of a convolution", "output of a block", "weights of attention", "parameters")
    wrong = [name for name, mine, true in zip(names, got, wanted, strict=True) if abs(mine - true) > 1e-6]
    return f"Look again at: {', '.join(wrong)}."


EXERCISES = (
    Exercise(
        "unet.time_features",
        "Features of log-SNR",
        lambda logsnr, width: _features(logsnr, width),
        (
            Slip("The frequencies grow in equal steps. They should grow by equal factors.", _in_equal_steps),
            Slip("The first frequency is right, the last is not 5: with n frequencies there are n - 1 steps between them.", _one_step_short),
            Slip("Sine and cosine take turns. All sines come first, then all cosines.", lambda logsnr, width: _features(logsnr, width, order="turns")),
            Slip("The cosines come first. The sines should.", lambda logsnr, width: _features(logsnr, width, order="swapped")),
            Slip("The angles are 2 pi times too large: the frequencies count radians, not turns.", lambda logsnr, width: _features(logsnr, width, turn=2 * math.pi)),
            Slip("Those are the frequencies of the transformer, for whole numbers up to thousands. Ours lie between 0.05 and 5.", _of_the_transformer),
            Slip("It looks as if log-SNR was divided by the frequencies, and not multiplied.", _periods),
        ),
        _feature_inputs,
        explain=_explain_features,
    ),
    Exercise(
        "unet.attention",
        "Attention at any size",
        lambda q, k, v, heads: _attention(q, k, v, heads),
        (
            Slip("The products of queries and keys are not scaled.", lambda q, k, v, heads: _attention(q, k, v, heads, 1.0)),
            Slip("The products are divided by the root of all channels. Each head has only its own.", _over_all_channels),
            Slip("The products are divided by the channels of a head, without the square root.", _over_the_size),
            Slip("The softmax runs over the queries: for each key the weights sum to 1, and it should be for each query.", lambda q, k, v, heads: _attention(q, k, v, heads, axis=-2)),
            Slip("All channels are taken for one head.", lambda q, k, v, heads: _attention(q, k, v, 1)),
            Slip("The channels are dealt out to the heads in turns. A head owns neighbours: the first d channels, the next d, and so on.", lambda q, k, v, heads: _attention(q, k, v, heads, split="(d h)")),
            Slip("The mixing is right, and at the end height and width are exchanged: positions run along the rows.", lambda q, k, v, heads: _attention(q, k, v, heads, end="x y")),
        ),
        _attention_inputs,
        explain=_explain_attention,
    ),
    Exercise(
        "unet.identity",
        "A block that starts as nothing",
        lambda channels: _Residual(channels),
        (
            Slip("The fresh block is not the identity: its last layer adds something from the start.", lambda channels: _Residual(channels, "nothing")),
            Slip("The fresh block adds a constant: the last layer's weights are zero, and something else in it is not.", lambda channels: _Residual(channels, "weight")),
            Slip("The fresh block answers zero: what it computes starts as nothing, but its input is not added.", lambda channels: _Residual(channels, skip=False)),
            Slip("The fresh block is the identity, and it stays one: no gradient reaches its weights. Zero layers must not hide one another, and a factor 0 hides all.", lambda channels: _Residual(channels, factor=0.0)),
        ),
        lambda generator: (32 * int(torch.randint(1, 4, (), generator=generator)),),
        _tried,
        explain=_explain_identity,
    ),
    Exercise(
        "unet.parameters",
        "Count a block's parameters",
        lambda channels, out, told: _count(channels, out, told),
        (
            Slip("The weights are all there, the biases are not.", lambda channels, out, told: _count(channels, out, told, biases=0)),
            Slip("The scales and shifts of the two norms are missing.", lambda channels, out, told: _count(channels, out, told, norms=0)),
            Slip("The 1 x 1 convolution that carries the input past is missing where the channels differ.", lambda channels, out, told: _count(channels, out, told, skip="never")),
            Slip("The 1 x 1 convolution is counted even where the channels are equal: there the input passes as it is.", lambda channels, out, told: _count(channels, out, told, skip="always")),
            Slip("The told vector becomes a scale and a shift, two numbers a channel: one of them is missing.", lambda channels, out, told: _count(channels, out, told, modulated=1)),
            Slip("The second convolution goes from `out` to `out` channels.", lambda channels, out, told: _count(channels, out, told, swapped=True)),
            Slip("A 3 x 3 kernel has nine weights for each pair of channels.", lambda channels, out, told: _count(channels, out, told, kernel=3)),
        ),
        _count_inputs,
        _counted,
        tolerance=1e-9,
        explain=_explain_count,
    ),
    Exercise(
        "unet.memory",
        "From 32 to 64 pixels",
        GROWTH,
        (
            Slip("These are factors for the side. Twice the side is more than twice the picture.", (2, 2, 4, 1)),
            Slip("Attention weighs pairs of positions, not positions.", (4, 4, 4, 1)),
            Slip("A convolution uses the same weights everywhere: does a larger picture need more of them?", (4, 4, 16, 4)),
            Slip("Only attention is right about pairs. A convolution's cost grows with the positions, not with pairs of them.", (16, 4, 16, 1)),
            Slip("The first is about work and the second about memory. Both grow with the number of positions.", (4, 2, 16, 1)),
        ),
        tolerance=1e-6,
        explain=_explain_growth,
    ),
)  # fmt: skip
