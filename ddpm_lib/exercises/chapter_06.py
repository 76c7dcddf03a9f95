"""The exercises of chapter 6, with their answers and the slips that people make."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .attempts import Attempt, read, theirs
from .compare import NO_RETURN, shaped, what
from .engine import Exercise, Slip
from .results import Calls, Unfit

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


def _with_ends(first: float, last: float) -> Callable:
    """Features at frequencies of equal factors between two others."""

    def attempt(logsnr, width):
        steps = torch.arange(width // 2, dtype=torch.float64) / (width // 2 - 1)
        return _features(logsnr, width, first * (last / first) ** steps)

    return attempt


def _explain_features(arguments: tuple, got: Tensor, wanted: Tensor) -> str:
    right = ((got - wanted).abs() < 1e-5).all(0)
    half = len(right) // 2
    if right[:half].all():
        return "The sines are right, the cosines are not."
    if right[half:].all():
        return "The cosines are right, the sines are not."
    if got.abs().max() > 1 + 1e-6:
        return "Sines and cosines lie between -1 and 1. Some of yours do not."
    at_ends = [right[[place, place + half]].all() for place in (0, half - 1)]
    if all(at_ends):
        return "The first frequency and the last are right. Those between are not."
    if any(at_ends):
        return "The {} frequency is right, the others are not.".format("first" if at_ends[0] else "last")
    if right.any():
        return f"{int(right.sum())} of the {2 * half} features are right for all log-SNRs."
    if (got[:, :half].square() + got[:, half:].square() - 1).abs().max() < 1e-5:
        return "They are sines and cosines of the same angles, but the angles are not log-SNR times frequencies from 0.05 to 5."
    return "The first half should be sines, and the second half cosines of the same angles."


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


def _not_turned_back(q, k, v, heads, end="b h n d -> b h n d"):
    """(B, heads, N, d), or (B, N, C), taken for (B, C, H, W) as it lies in memory."""
    rows = (rearrange(each, "b (h d) y x -> b h (y x) d", h=heads) for each in (q, k, v))
    return rearrange(F.scaled_dot_product_attention(*rows), end).reshape(v.shape)


def _cut_as_it_lies(q, k, v, heads):
    """(B, C, H, W) taken for (B, heads, N, d) as it lies in memory, and back."""
    rows = (each.reshape(len(q), heads, -1, q.shape[1] // heads) for each in (q, k, v))
    return F.scaled_dot_product_attention(*rows).reshape(v.shape)


def _mixed_with(weigh) -> Callable:
    """The values mixed with other weights, made of the scaled products (B, heads, N, N) of queries and keys."""

    def attempt(q, k, v, heads):
        q, k, mixed = (rearrange(each, "b (h d) y x -> b h (y x) d", h=heads) for each in (q, k, v))
        mixed = weigh(q @ k.mT * q.shape[-1] ** -0.5) @ mixed
        return rearrange(mixed, "b h (y x) d -> b (h d) y x", y=v.shape[2])

    return attempt


def _of_channels(q, k, v, heads):
    """Attention between the channels of a head: nothing is turned, neither there nor back."""
    rows = (each.flatten(2).unflatten(1, (heads, -1)) for each in (q, k, v))
    return F.scaled_dot_product_attention(*rows).reshape(v.shape)


def _over_all_channels(q, k, v, heads):
    return _attention(q, k, v, heads, q.shape[1] ** -0.5)


def _over_the_size(q, k, v, heads):
    return _attention(q, k, v, heads, heads / q.shape[1])


def _attention_inputs(generator: torch.Generator) -> tuple:
    heads = int(torch.randint(2, 5, (), generator=generator))
    # never as many as heads: then dividing by d and by the root of all channels is the same
    dims = int(torch.randint(5, 7, (), generator=generator))
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

    def __init__(
        self,
        channels: int,
        zero: str = "all",
        skip: bool = True,
        factor: float = 1.0,
        hide: bool = False,
        after=None,
        frozen: bool = False,
        cut=None,
    ):
        super().__init__()
        layers = [
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.GroupNorm(1, channels),
            nn.Conv2d(channels, channels, 3, padding=1),
        ]
        # a list hides its layers from nn.Module
        self.layers = layers if hide else nn.ModuleList(layers)
        self.skip, self.factor, self.after = skip, factor, after or (lambda x: x)
        self.cut = cut or (lambda x: x)
        if zero != "nothing":
            nn.init.zeros_(layers[2].weight)
        if zero in ("all", "every layer"):
            nn.init.zeros_(layers[2].bias)
        if zero == "every layer":
            nn.init.zeros_(layers[0].weight)
            nn.init.zeros_(layers[0].bias)
        self.requires_grad_(not frozen)

    def forward(self, x: Tensor) -> Tensor:
        first, norm, last = self.layers
        added = self.cut(self.factor * last(F.silu(norm(first(x)))))
        return self.after(x + added if self.skip else added)


class _OfSmallNumbers(_Residual):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.clamp(-9, 9))


ACTIVATIONS = (F.relu, F.silu, F.gelu, F.elu, F.leaky_relu, F.tanh, F.sigmoid, F.softplus)


def _tried(attempt: Attempt, arguments: tuple) -> object:
    """The first thing that is wrong with the block, fresh and after a few steps of training, in a word."""
    if issubclass(type(attempt.given), nn.Module):
        raise Unfit(
            "This is a finished block. Hand over what builds one: its class, or a function of the channels."
        )
    channels, others, seed = arguments
    # the same weights whenever it is tried on the same arguments
    torch.manual_seed(seed)
    blocks = []
    for each in (channels, others):
        block = attempt.raw(each)
        if block is ...:
            return ...
        # not isinstance, which asks the object itself
        if not issubclass(type(block), nn.Module):
            raise Unfit(_no_block(block))
        blocks.append(block)
    block, other = blocks
    _asked(other, torch.randn(2, others, 3, 4))
    x, large = torch.randn(2, channels, 6, 5), 30 * torch.randn(2, channels, 3, 8)
    fresh, from_large = _asked(block, x), _asked(block, large)
    if (fresh - x).abs().max() > 1e-6:
        return _changes(x, fresh)
    if (from_large - large).abs().max() > 1e-5:
        return "changes large numbers"
    hidden, weights, frozen = theirs(_looked_into)(block)
    if not weights:
        return "layers in a list" if hidden else "frozen" if frozen else "no weights"
    if not theirs(_train)(block, weights, x):
        return "layers in a list" if hidden else "cut off"
    moved = _asked(block, x) - fresh
    if moved.abs().max() < 1e-6:
        return "layers in a list" if hidden else "stays"
    return "learns" if (moved.std((0, 2, 3)) > 1e-4).any() else "learns a constant"


def _block_inputs(generator: torch.Generator) -> tuple:
    """Two numbers of channels, and a seed."""
    channels = 32 * (1 + torch.randperm(3, generator=generator)[:2])
    return *channels.tolist(), int(torch.randint(10**6, (), generator=generator))


def _no_block(built: object) -> str:
    if built is None:
        return NO_RETURN
    if issubclass(type(built), type):
        return "It returns a class. Call it: a block is asked for, an nn.Module."
    return (
        "It is called with the number of channels, and should return a block, an nn.Module, which is then called with "
        f"pictures. What it returns is {what(read(built))}."
    )


def _asked(block: nn.Module, x: Tensor) -> Tensor:
    # a copy: a block that changes its input in place must not pass for the identity
    return shaped(read(theirs(block)(x.clone())), x, f"For x of shape {tuple(x.shape)}")


def _looked_into(block: nn.Module) -> tuple[bool, list[nn.Parameter], bool]:
    """Whether it hides layers; the weights that can be trained; and whether there are others."""
    weights = list(block.parameters())
    free = [weight for weight in weights if weight.requires_grad]
    return any(map(_hides_layers, block.modules())), free, len(free) < len(weights)


def _train(block: nn.Module, weights: list[nn.Parameter], x: Tensor) -> bool:
    """A few steps. False if no gradient comes back from what it returns."""
    optimizer = torch.optim.Adam(weights, lr=1e-2)
    for _ in range(6):
        optimizer.zero_grad()
        loss = (block(x) - x.flip(3)).square().mean()
        if not loss.requires_grad:
            return False
        loss.backward()
        optimizer.step()
    return True


def _changes(x: Tensor, fresh: Tensor) -> str:
    if fresh.abs().max() < 1e-6:
        return "answers zero"
    if (fresh - x).std((0, 2, 3)).max() < 1e-6:
        return "adds a constant"
    if any((fresh - after(x)).abs().max() < 1e-5 for after in ACTIVATIONS):
        return "ends in an activation"
    return "changes its input"


def _hides_layers(module: nn.Module) -> bool:
    """Whether it keeps layers where nn.Module does not look for them."""
    kept = [each for each in vars(module).values() if type(each) in (list, tuple, dict)]
    inside = [each for box in kept for each in (box.values() if isinstance(box, dict) else box)]
    # its own tables of layers are dicts too, of what is registered
    registered = set(map(id, module.children()))
    return any(isinstance(each, nn.Module) and id(each) not in registered for each in inside)


# --- unet.parameters


def _count(channels, out, told, biases=1, norms=1, skip="if", modulated=2, kernel=9, swapped=False, **other):
    """The answer, and with other settings its slips; `other` replaces the count of a part."""
    first, last = kernel * channels * out + biases * out, kernel * out * out + biases * out
    if swapped:
        last = kernel * channels * channels + biases * channels
    across = channels * out + biases * out if skip == "always" or (skip == "if" and channels != out) else 0
    parts = {
        "first": first,
        "last": last,
        "across": across,
        "scales": norms * 2 * (channels + out),
        "linear": modulated * (told * out + biases * out),
    }
    if not across:
        other.pop("across", None)
    return sum((parts | {name: count(channels, out, told) for name, count in other.items()}).values())


def _counting(**other: Callable) -> Callable:
    return lambda channels, out, told: _count(channels, out, told, **other)


def _ways(channels: int, out: int) -> tuple[tuple[int, int], ...]:
    return (channels, out), (channels, channels), (out, channels)


def _counted(attempt: Callable, arguments: tuple) -> Calls:
    """With more channels going out than in, with the same, and with fewer."""
    channels, out, told = arguments
    return Calls(
        {
            f"For {into} channels in, {wide} out and {told} told": attempt(into, wide, told)
            for into, wide in _ways(channels, out)
        }
    )


def _count_inputs(generator: torch.Generator) -> tuple:
    channels, more, told = torch.randint(4, 33, (3,), generator=generator).tolist()
    return 2 * channels, 2 * (channels + more), 8 * told


def _explain_count(arguments: tuple, got: Calls, wanted: Calls) -> str:
    away = {where: float(got[where] - wanted[where]) for where in wanted}
    words = [
        f"{abs(gap):,.12g} too {'many' if gap > 0 else 'few'} {where.replace('For', 'for', 1)}"
        for where, gap in away.items()
        if gap
    ]
    return "It counts " + "; ".join(words) + "."


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
            Slip("All features are sines. The second half should be cosines, at the same frequencies as the first.", lambda logsnr, width: _features(logsnr, 2 * width)[:, :width], (lambda logsnr, width: _features(logsnr, width)[:, : width // 2].repeat(1, 2),)),
            Slip("There are twice as many features as are asked for: `width` counts sines and cosines together.", lambda logsnr, width: _features(logsnr, 2 * width)),
            Slip("The frequencies fall from 5 to 0.05. They should grow.", _with_ends(5.0, 0.05)),
            Slip("The frequencies go from 1 to 100. They should go from 0.05 to 5.", _with_ends(1.0, 100.0)),
            Slip("The first frequency is right. From there the factor to the last is 100, and not 5.", _with_ends(0.05, 0.25)),
            Slip("The second frequency stands where the first should be: the powers begin with 0.", lambda logsnr, width: _features(logsnr, width, 0.05 * 100 ** (torch.arange(1, width // 2 + 1, dtype=torch.float64) / (width // 2 - 1)))),
            Slip("It looks as if SNR was used and not its logarithm.", lambda logsnr, width: _features(logsnr.exp(), width)),
        ),
        _feature_inputs,
        apart=lambda arguments: arguments[1],
        explain=_explain_features,
    ),
    Exercise(
        "unet.attention",
        "Attention at any size",
        lambda q, k, v, heads: _attention(q, k, v, heads),
        (
            Slip("The products of queries and keys are not scaled.", lambda q, k, v, heads: _attention(q, k, v, heads, 1.0)),
            Slip("The products are divided by the root of all channels. Each head has only its own.", _over_all_channels),
            Slip(
                "The products are divided by the channels of a head, without the square root; or by the root twice, because scaled_dot_product_attention does it by itself.",
                _over_the_size,
            ),
            Slip("Queries and keys are exchanged.", lambda q, k, v, heads: _attention(k, q, v, heads)),
            Slip("The weights are right, and they are turned round: row i of them, and not column i, mixes the values for position i.", _mixed_with(lambda products: products.softmax(-1).mT)),
            Slip("The softmax runs over the heads. For each query the weights of all keys sum to 1, in each head.", _mixed_with(lambda products: products.softmax(1))),
            Slip("The softmax runs over the batch. For each query the weights of all keys sum to 1.", _mixed_with(lambda products: products.softmax(0))),
            Slip("The softmax is missing: the products themselves were taken for weights.", _mixed_with(lambda products: products)),
            Slip("The exponentials are not divided by their sum: the weights of each query should sum to 1.", _mixed_with(lambda products: products.exp())),
            Slip("The values were added to what was collected. Only what is collected is asked for.", lambda q, k, v, heads: v + _attention(q, k, v, heads)),
            Slip("It looks as if channels looked at channels. Positions look at positions: they come before the channels of a head, (B, heads, N, d).", _of_channels),
            Slip("The softmax runs over the queries: for each key the weights sum to 1, and it should be so for each query.", lambda q, k, v, heads: _attention(q, k, v, heads, axis=-2)),
            Slip(
                "The collected values are there, and not at their places: (B, heads, N, d) must be turned back, positions last, before it is reshaped.",
                _not_turned_back,
                (lambda q, k, v, heads: _not_turned_back(q, k, v, heads, "b h n d -> b n (h d)"),),
            ),
            Slip("The channels are cut as they lie in memory. A reshape alone moves no axis: positions must come before channels.", _cut_as_it_lies),
            Slip("All channels are taken for one head.", lambda q, k, v, heads: _attention(q, k, v, 1)),
            Slip("The channels are dealt out to the heads in turns. A head owns neighbours: the first d channels, the next d, and so on.", lambda q, k, v, heads: _attention(q, k, v, heads, split="(d h)")),
            Slip("The mixing is right, and at the end height and width are exchanged: positions run along the rows.", lambda q, k, v, heads: _attention(q, k, v, heads, end="x y")),
        ),
        _attention_inputs,
        apart=lambda arguments: arguments[3],
        explain=_explain_attention,
    ),
    Exercise(
        "unet.identity",
        "A block that starts as nothing",
        lambda channels: _Residual(channels),
        (
            Slip("The fresh block is not the identity. Either its last layer adds something from the start, or something comes after the sum.", lambda channels: _Residual(channels, "nothing")),
            Slip("The fresh block adds a constant: the last layer's weights are zero, and something else in it is not.", lambda channels: _Residual(channels, "weight")),
            Slip("The fresh block answers zero: what it computes starts as nothing, but its input is not added.", lambda channels: _Residual(channels, skip=False)),
            Slip("The fresh block is an activation: one comes after the sum. The way past must be free of it.", lambda channels: _Residual(channels, after=F.relu)),
            Slip("The fresh block is the identity for small numbers, and not for large ones.", _OfSmallNumbers),
            Slip("The fresh block is the identity, and it stays one: no gradient reaches its weights. Zero layers must not hide one another, and a factor 0 hides all.", lambda channels: _Residual(channels, factor=0.0)),
            Slip("After training it is the identity plus a constant: only a bias moves. If every layer is zero, each hides the other's gradient.", lambda channels: _Residual(channels, "every layer")),
            Slip("nn.Module does not see layers in a Python list: the optimiser gets none of their weights. Keep them in nn.ModuleList or nn.Sequential.", lambda channels: _Residual(channels, hide=True)),
            Slip("The fresh block is the identity, and it has no weights: there is nothing that could learn.", lambda channels: nn.Identity()),
            Slip("The fresh block is the identity, and all its weights are frozen: requires_grad is False.", lambda channels: _Residual(channels, frozen=True)),
            Slip("The fresh block is the identity, but no gradient leads back to its weights: something cuts it off, torch.no_grad() or .detach().", lambda channels: _Residual(channels, cut=torch.Tensor.detach)),
        ),
        # never the same number twice: a block of a fixed number of channels is seen
        _block_inputs,
        _tried,
        trials=1,
    ),
    Exercise(
        "unet.parameters",
        "Count a block's parameters",
        lambda channels, out, told: _count(channels, out, told),
        (
            Slip(
                "The weights are all there, the biases are not.",
                lambda channels, out, told: _count(channels, out, told, biases=0),
            ),
            Slip("The weights are all there. The biases are missing, and so are the scales and shifts of the norms.", lambda channels, out, told: _count(channels, out, told, biases=0, norms=0)),
            Slip("The scales and shifts of the two norms are missing.", lambda channels, out, told: _count(channels, out, told, norms=0)),
            Slip("The 1 x 1 convolution that carries the input past is missing where the channels differ.", lambda channels, out, told: _count(channels, out, told, skip="never")),
            Slip("The 1 x 1 convolution is counted even where the channels are equal: there the input passes as it is.", lambda channels, out, told: _count(channels, out, told, skip="always")),
            Slip("The told vector becomes a scale and a shift, two numbers a channel: one of them is missing.", lambda channels, out, told: _count(channels, out, told, modulated=1)),
            Slip("The second convolution goes from `out` to `out` channels.", lambda channels, out, told: _count(channels, out, told, swapped=True)),
            Slip(
                "It counts 2 * out too few. So many are the biases of the two 3 x 3 convolutions, or those of the linear layer, or the scale and shift of the second norm.",
                _counting(linear=lambda c, o, t: 2 * t * o),
            ),
            Slip("The bias of the 1 x 1 convolution is missing.", _counting(across=lambda c, o, t: c * o)),
            Slip("All biases of the convolutions are missing.", _counting(first=lambda c, o, t: 9 * c * o, last=lambda c, o, t: 9 * o * o, across=lambda c, o, t: c * o)),
            Slip("The linear layer that reads what is told is missing.", _counting(linear=lambda c, o, t: 0)),
            Slip("The linear layer ends in a scale and a shift for each of the `out` channels, and not of the `channels` that come in.", _counting(linear=lambda c, o, t: 2 * t * c + 2 * c)),
            Slip("The second convolution goes from `out` to `out` channels. That is a convolution from `channels` to `out` twice.", _counting(last=lambda c, o, t: 9 * c * o + o)),
            Slip("The way past is a 1 x 1 convolution. It looks as if it was counted as 3 x 3.", _counting(across=lambda c, o, t: 9 * c * o + o)),
            Slip("Each of the two norms has a scale and a shift for every channel: one of the two is missing.", _counting(scales=lambda c, o, t: c + o)),
            Slip("The first norm has `channels` channels, and the second has `out`.", _counting(scales=lambda c, o, t: 4 * o), (_counting(scales=lambda c, o, t: 4 * c),)),
            Slip("The first norm is missing: there are two.", _counting(scales=lambda c, o, t: 2 * o)),
            Slip("A norm has a scale and a shift for each channel, and not one of each for all.", _counting(scales=lambda c, o, t: 4)),
            Slip("It looks as if the channels that come in and those that go out were exchanged.", lambda channels, out, told: _count(out, channels, told)),
            Slip("The way past has a convolution whenever the numbers of channels differ, with more going out or fewer.", lambda channels, out, told: _count(channels, out, told, skip="if" if out > channels else "never"), (lambda channels, out, told: _count(channels, out, told, skip="if" if out < channels else "never"),)),
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
            Slip("No growth is the factor 1. It looks as if you say by how much they grow, and not how many times as large they are.", (3, 3, 15, 0), ((4, 4, 16, 0),)),
            Slip("Those are factors from 64 to 32 pixels.", (0.25, 0.25, 0.0625, 1)),
            Slip("These are in per cent. Factors are asked for.", (400, 400, 1600, 100), ((300, 300, 1500, 0),)),
            Slip("The first is about work and the second about memory. Both grow with the number of positions.", (4, 2, 16, 1)),
        ),
        tolerance=1e-6,
        explain=_explain_growth,
    ),
)  # fmt: skip
