"""Chapter 6: the network that it writes out is the library's, its equations are true, its claims hold."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import cells_of, close, f64
from einops import einsum, rearrange
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ddpm_lib import layers
from ddpm_lib.checkpoint import pretrained
from ddpm_lib.data import load_images, to_float
from ddpm_lib.denoiser import Denoiser, coefficients, target
from ddpm_lib.exercises import check
from ddpm_lib.exercises.chapter_06 import _Residual
from ddpm_lib.schedule import cosine, flow
from ddpm_lib.unet import UNet, UNetConfig, anatomy

DEFINING = (
    "features",
    "conditioning",
    "block",
    "attention-code",
    "whole-parts",
    "whole-forward",
    "bug-code",
    "bug-patches",
    "bug-check",
)


@pytest.fixture(scope="module")
def cells() -> dict[str, str]:
    return {name: cell.source for name, cell in cells_of("06_a_unet_you_can_hold_in_your_head").items()}


@pytest.fixture(scope="module")
def book(cells) -> dict:
    """What the cells that define functions leave behind, in the order of the chapter."""
    names = {
        "torch": torch,
        "nn": nn,
        "generator": torch.Generator().manual_seed(0),
        "print": lambda *values, **_: None,
    }
    for name in ("seen", "norm-code", *DEFINING):
        exec(cells[name], names)
    return names


@pytest.fixture(scope="module")
def shipped() -> UNet:
    return pretrained("mnist28").denoiser().net.double().requires_grad_(False)


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def awake(module: nn.Module) -> nn.Module:
    """What starts at zero hides what stands before it: give every weight a value."""
    module = module.double()
    for number, parameter in enumerate(module.parameters()):
        parameter.data.add_(0.1 * draws(*parameter.shape, seed=number))
    return module.requires_grad_(False)


# --- the code is the library's


@pytest.mark.parametrize("size", [28, 32])
@pytest.mark.parametrize("label", [None, [7, 0, 3]])
def test_the_network_of_the_chapter_is_the_shipped_one(book, shipped, size, label):
    mine = book["MyUNet"]().double()
    mine.load_state_dict(shipped.state_dict())
    x, logsnr = draws(3, 1, size, size), f64([-5, 0, 5])
    label = None if label is None else torch.tensor(label)
    with torch.no_grad():
        close(mine(x, logsnr, label), shipped(x, logsnr, label), 1e-6)


@pytest.mark.parametrize(("channels", "out"), [(48, 48), (48, 96), (144, 48), (8, 8)])
def test_the_block_is_the_librarys(book, channels, out):
    theirs = awake(layers.ResBlock(channels, out, 20))
    mine = book["MyBlock"](channels, out, 20).double()
    mine.load_state_dict(theirs.state_dict())
    h, c = draws(2, channels, 5, 7), draws(2, 20, seed=1)
    with torch.no_grad():
        close(mine(h, c), theirs(h, c), 1e-6)


@pytest.mark.parametrize("shape", [(7, 7), (3, 8), (1, 1)])
def test_the_attention_is_the_librarys(book, shape):
    theirs = awake(layers.Attention(48, 16))
    mine = book["MyAttention"](48).double()
    mine.load_state_dict(theirs.state_dict())
    h = draws(2, 48, *shape)
    with torch.no_grad():
        close(mine(h), theirs(h), 1e-6)


@pytest.mark.equation("eq-told")
def test_the_conditioning_is_the_librarys(book):
    theirs = awake(layers.Conditioning(16, 24, 10))
    mine = book["MyConditioning"](16, 24, 10).double()
    mine.load_state_dict(theirs.state_dict())
    logsnr, label = f64([-30, -3, 0, 8]), torch.tensor([0, 9, 4, 4])
    with torch.no_grad():
        close(mine(logsnr, label), theirs(logsnr, label), 1e-6)
        close(mine(logsnr), theirs(logsnr), 1e-6)


def test_the_network_takes_about_a_hundred_lines(cells):
    lines = [line for name in DEFINING[:6] for line in cells[name].splitlines() if line.strip()]
    assert 90 <= len([line for line in lines if not line.startswith(("import", "from"))]) <= 110


# --- the equations


@pytest.mark.equation("eq-conv-cost")
@pytest.mark.parametrize(
    ("channels", "out", "rows", "columns"), [(48, 96, 14, 14), (3, 8, 5, 9), (7, 1, 1, 2)]
)
def test_eq_conv_cost_is_what_pytorch_counts(channels, out, rows, columns):
    layer = nn.Conv2d(channels, out, 3, padding=1)
    assert sum(p.numel() for p in layer.parameters()) == 9 * channels * out + out
    with FlopCounterMode(display=False) as counter:
        layer(torch.zeros(1, channels, rows, columns))
    assert counter.get_total_flops() == 2 * 9 * channels * out * rows * columns


def test_half_the_grid_and_twice_the_channels_cost_the_same():
    count = lambda c, n: 9 * c * c * n * n  # noqa: E731
    assert count(48, 14) == count(96, 7)


@pytest.mark.equation("eq-receptive-field")
@pytest.mark.parametrize(
    "strides", [[1], [2], [1, 2, 1], [2, 2, 1], [2, 1, 2, 1, 2], [1] * 12, [1, 1, 2, 1, 1, 2, 1, 1]]
)
def test_eq_receptive_field_is_where_the_gradient_is(book, strides):
    formula, measured = book["seen"](strides)
    assert formula == measured
    assert formula == 1 + sum(2 * math.prod(strides[:i]) for i in range(len(strides)))


@pytest.mark.equation("eq-bottleneck")
@pytest.mark.parametrize(("size", "kept"), [(20, 5), (64, 32), (30, 29)])
def test_eq_bottleneck_is_reached_and_never_beaten(size, kept):
    squares = lambda a, b: float((torch.eye(size, dtype=torch.float64) - a @ b).square().sum()) / size  # noqa: E731
    for seed in range(5):
        there = draws(kept, size, seed=seed)
        assert squares(torch.linalg.pinv(there), there) == pytest.approx(1 - kept / size, abs=1e-9)
        back = torch.linalg.pinv(there) + 0.05 * draws(size, kept, seed=seed + 9)
        assert squares(back, there) > 1 - kept / size
    # and by drawing noise
    a = torch.linalg.pinv(there)
    noise = draws(20_000, size, seed=3)
    lost = (noise - noise @ (a @ there).T).square().mean(1)
    assert abs(lost.mean() - (1 - kept / size)) < 4 * lost.std() / 20_000**0.5


@pytest.mark.equation("eq-time-features")
@pytest.mark.parametrize("width", [8, 16, 48])
def test_eq_time_features_is_the_librarys(book, width):
    logsnr = f64(torch.linspace(-25, 25, 101))
    mine = book["time_features"](logsnr, width)
    close(mine, layers.time_features(logsnr, width), 1e-6)
    n = width // 2
    for i, frequency in ((1, 0.05), (n, 5.0), (3, 0.05 * 100 ** (2 / (n - 1)))):
        close(mine[:, i - 1], (frequency * logsnr.clamp(-20, 20)).sin(), 1e-4)
        close(mine[:, n + i - 1], (frequency * logsnr.clamp(-20, 20)).cos(), 1e-4)


@pytest.mark.equation("eq-features-dot")
def test_eq_features_dot_knows_the_difference_only():
    one, other = 5 * draws(2, 200).clamp(-3.9, 3.9)
    dots = (layers.time_features(one, 32) * layers.time_features(other, 32)).sum(1)
    omega = 0.05 * 100 ** (torch.arange(16, dtype=torch.float64) / 15)
    close(dots, ((one - other)[:, None] * omega).cos().sum(1), 1e-3)
    close((layers.time_features(one, 32) ** 2).sum(1), 16, 1e-5)


@pytest.mark.equation("eq-told")
def test_eq_told_adds_a_row_of_the_table(shipped):
    part, logsnr = shipped.conditioning, f64([-4, 0, 4])
    time = part.mlp(layers.time_features(logsnr, part.width))
    for y in range(10):
        close(part(logsnr, torch.full((3,), y)) - time, part.label.weight[y].expand(3, -1), 1e-9)
    close(part(logsnr) - time, part.label.weight[10].expand(3, -1), 1e-9)
    assert len(part.label.weight) == 11


@pytest.mark.equation("eq-group-norm")
@pytest.mark.parametrize("groups", [1, 4, 12])
def test_eq_group_norm_has_mean_0_and_variance_1_and_is_blind(book, groups):
    h = 5 + 3 * draws(3, 12, 6, 5)
    n = book["normed"](h, groups)
    close(n, nn.GroupNorm(groups, 12).double()(h), 1e-9)
    rows = n.reshape(3, groups, -1)
    close(rows.mean(2), torch.zeros(3, groups), 1e-9)
    close(rows.var(2, correction=0), torch.ones(3, groups), 1e-5)
    # a scale and a shift of each group of each picture
    scale, shift = draws(3, groups, 1, seed=1).exp(), 10 * draws(3, groups, 1, seed=2)
    moved = (h.reshape(3, groups, -1) * scale + shift).view(h.shape)
    close(book["normed"](moved, groups), n, 5e-3)
    # but not of one channel within its group
    if groups < 12:
        poked = h.clone()
        poked[:, 0] += 10
        assert (book["normed"](poked, groups) - n).abs().max() > 0.1
    # each picture on its own
    close(book["normed"](h[:1], groups), n[:1], 1e-12)


@pytest.mark.equation("eq-res-block", "eq-group-norm")
@pytest.mark.parametrize(("channels", "out"), [(12, 12), (12, 20)])
def test_eq_res_block_by_hand(channels, out):
    block = awake(layers.ResBlock(channels, out, 10))
    h, c = draws(2, channels, 5, 4), draws(2, 10, seed=1)
    phi = lambda u: u / (1 + torch.exp(-u))  # noqa: E731

    def norm(u, layer):
        rows = u.reshape(len(u), layer.num_groups, -1)
        rows = rows - rows.mean(2, keepdim=True)
        rows = rows / (rows.square().mean(2, keepdim=True) + 1e-5).sqrt()
        return layer.weight[:, None, None] * rows.view(u.shape) + layer.bias[:, None, None]

    def convolved(u, layer):
        weight = layer.weight
        windows = (
            F.pad(u, [weight.shape[-1] // 2] * 4)
            .unfold(2, weight.shape[-1], 1)
            .unfold(3, weight.shape[-1], 1)
        )
        return einsum(windows, weight, "b c y x i j, o c i j -> b o y x") + layer.bias[:, None, None]

    told = phi(c) @ block.condition.weight.T + block.condition.bias
    scale, shift = told[:, :out, None, None], told[:, out:, None, None]
    inner = (1 + scale) * norm(convolved(phi(norm(h, block.norm_in)), block.conv_in), block.norm_out) + shift
    past = h if channels == out else convolved(h, block.skip)
    close(block(h, c), past + convolved(phi(inner), block.conv_out), 1e-9)


@pytest.mark.equation("eq-res-block")
def test_a_fresh_block_of_the_chapter_is_the_identity_and_not_dead(book):
    block, h, c = book["MyBlock"](12, 12, 10), torch.randn(2, 12, 5, 4), torch.randn(2, 10)
    assert torch.equal(block(h, c), h)
    block(h, c).square().sum().backward()
    assert block.conv_out.weight.grad.any()
    wider = book["MyBlock"](12, 20, 10)
    assert torch.equal(wider(h, c), wider.skip(h))
    attention = book["MyAttention"](32)
    h = torch.randn(2, 32, 3, 4)
    assert torch.equal(attention(h), h)


@pytest.mark.equation("eq-fresh-loss")
@pytest.mark.parametrize(
    ("predict", "schedule"), [("eps", "cosine"), ("x0", "cosine"), ("v", "cosine"), ("flow", "flow")]
)
def test_eq_fresh_loss_is_that_of_answering_zero(predict, schedule):
    schedule = {"cosine": cosine(), "flow": flow()}[schedule]
    config = UNetConfig(28, 1, 10, 8, (1, 2), 1, (1,), 8)
    x0 = to_float(load_images("mnist", "test").images[:200])
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(2))
    for time in (0.1, 0.6):
        a, s = schedule.signal_noise(time)
        loss = (
            Denoiser(UNet(config), schedule, predict)
            .loss(x0, torch.full((200,), time, dtype=torch.float64), eps)
            .detach()
        )
        assert torch.equal(loss, target(x0, eps, a, s, predict).square().flatten(1).mean(1))
        p, q = coefficients(predict, a, s)
        gap = loss - (p**2 * x0.square().flatten(1).mean(1) + q**2)
        assert abs(gap.mean()) < 4 * gap.std() / 200**0.5 + 1e-6


@pytest.mark.equation("eq-attention")
@pytest.mark.parametrize("shape", [(3, 3), (2, 5)])
def test_eq_attention_by_loops_and_by_pytorch(book, shape):
    layer = awake(book["MyAttention"](32))
    h = draws(1, 32, *shape)
    weights, values = layer.weights(h)
    qkv = rearrange(layer.qkv(layer.norm(h)), "b (n h d) y x -> n b h (y x) d", n=3, h=2)
    places = shape[0] * shape[1]
    collected = torch.zeros(1, 2, places, 16, dtype=torch.float64)
    for head in range(2):
        q, k, v = qkv[:, 0, head]
        for i in range(places):
            products = [math.exp(float(q[i] @ k[j]) / 4) for j in range(places)]
            for j in range(places):
                close(weights[0, head, i, j], products[j] / sum(products), 1e-9)
                collected[0, head, i] += products[j] / sum(products) * v[j]
    close(weights.sum(-1), torch.ones(1, 2, places), 1e-12)
    close(rearrange(values @ weights.mT, "b h d n -> b h n d"), collected, 1e-9)
    close(F.scaled_dot_product_attention(*qkv), collected, 1e-9)


@pytest.mark.equation("eq-attention-cost")
@pytest.mark.parametrize(("side", "heads", "dim"), [(7, 6, 16), (5, 1, 8), (9, 2, 3)])
def test_eq_attention_cost_is_what_pytorch_counts(side, heads, dim):
    q = torch.randn(1, heads, side**2, dim)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        F.scaled_dot_product_attention(q, q, q)
    assert counter.get_total_flops() == 2 * (2 * side**4 * heads * dim)
    assert (q @ q.mT).numel() == (heads * dim) // dim * side**4
    layer = layers.Attention(heads * dim, dim)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        layer(torch.randn(1, heads * dim, side, side))
    channels = heads * dim
    assert counter.get_total_flops() == 2 * (2 * side**4 * channels + 4 * side**2 * channels**2)


# --- the claims


def test_the_shipped_network_is_as_the_chapter_describes_it(shipped):
    parts = anatomy(shipped)
    kinds = [part.kind for part in parts]
    assert kinds.count("block") == 12 and kinds.count("attention") == 6
    assert parts[0].kind == "told" and parts[-1].kind == "head"
    assert [part.made for part in parts if part.name == "middle.2"] == [(96, 7, 7)]
    # forty layers deep, not counting the ways past
    deep = [name for name, module in shipped.named_modules() if isinstance(module, nn.Conv2d)]
    assert len([name for name in deep if not name.endswith(".skip")]) == 40


def test_time_and_label_reach_every_block_of_the_shipped_network(shipped):
    blocks = [module for module in shipped.modules() if isinstance(module, layers.ResBlock)]
    told = shipped.conditioning
    pairs = [
        (told(f64([0.0])), told(f64([2.0]))),
        (told(f64([0.0]), torch.tensor([3])), told(f64([0.0]), torch.tensor([4]))),
    ]
    for block in blocks:
        h = draws(1, block.conv_in.in_channels, 7, 7)
        for one, other in pairs:
            assert (block(h, one) - block(h, other)).abs().max() > 1e-3


def test_what_is_told_before_a_norm_to_a_whole_group_is_lost(book):
    h = draws(2, 48, 6, 6)
    close(book["normed"](h + 3.7, 16), book["normed"](h, 16), 1e-9)


def test_the_bug_is_caught_by_what_must_not_change(book):
    found = {
        (name, shape): book["obeys"](book[name], shape)
        for name in ("patched", "square", "ours")
        for shape in ((14, 14), (28, 28), (7, 7), (14, 28), (7, 28))
    }
    assert all(found[name, (14, 14)] == (True, True) for name in ("patched", "square", "ours"))
    assert all(found["ours", shape] == (True, True) for _, shape in found)
    assert found["patched", (28, 28)] == (True, False)
    assert not found["patched", (7, 7)][0] and found["patched", (14, 28)] == (True, False)
    # as many positions as it was made for: nothing to notice
    assert found["patched", (7, 28)] == (True, True)
    assert found["square", (28, 28)] == found["square", (7, 7)] == (True, True)
    assert not found["square", (14, 28)][0] and not found["square", (7, 28)][0]
    h = torch.randn(4, 16, 28, 28)
    assert book["for_one_size"](h).shape == (16, 16, 14, 14)


# --- the exercises, solved in other ways


def features_in_loops(logsnr, width):
    n = width // 2
    omega = [0.05 * 100 ** (i / (n - 1)) for i in range(n)]
    rows = [[math.sin(w * x) for w in omega] + [math.cos(w * x) for w in omega] for x in logsnr.tolist()]
    return rows


def features_in_numpy(logsnr, width):
    angles = np.outer(logsnr.numpy(), np.geomspace(0.05, 5, width // 2))
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


def features_in_float32(logsnr, width):
    return layers.time_features(logsnr.float(), width)


@pytest.mark.parametrize("attempt", [features_in_loops, features_in_numpy, features_in_float32])
def test_other_ways_to_make_features_are_correct(attempt):
    assert check("unet.time_features", attempt, record=False)


def attention_by_heads(q, k, v, heads):
    d = q.shape[1] // heads
    collected = torch.empty_like(v)
    for head in range(heads):
        part = slice(head * d, (head + 1) * d)
        queries, keys, values = (each[:, part].flatten(2) for each in (q, k, v))
        weights = (torch.einsum("bdi,bdj->bij", queries, keys) / math.sqrt(d)).softmax(-1)
        collected[:, part] = torch.einsum("bij,bdj->bdi", weights, values).view_as(collected[:, part])
    return collected


def attention_in_numpy(q, k, v, heads):
    shape = q.shape
    q, k, v = (each.numpy().reshape(shape[0], heads, -1, shape[2] * shape[3]) for each in (q, k, v))
    products = np.exp(np.einsum("bhdi,bhdj->bhij", q, k) / np.sqrt(q.shape[2]))
    return (np.einsum("bhij,bhdj->bhdi", products, v) / products.sum(-1)[:, :, None]).reshape(shape)


def attention_in_float32(q, k, v, heads):
    rows = [rearrange(each.float(), "b (h d) y x -> b h (y x) d", h=heads) for each in (q, k, v)]
    return rearrange(F.scaled_dot_product_attention(*rows), "b h (y x) d -> b (h d) y x", x=q.shape[3])


@pytest.mark.parametrize("attempt", [attention_by_heads, attention_in_numpy, attention_in_float32])
def test_other_ways_to_attend_are_correct(attempt):
    assert check("unet.attention", attempt, record=False)


class Gated(nn.Module):
    """A factor that is learned and starts at 0 (and not a constant)."""

    def __init__(self, channels):
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(channels, 8, 1), nn.ReLU(), nn.Conv2d(8, channels, 3, padding=1))
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return self.gate * self.inner(x) + x


class WithoutBias(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norm, self.act = nn.GroupNorm(1, channels), nn.GELU()
        self.last = nn.Conv2d(channels, channels, 5, padding=2, bias=False)
        self.last.weight.data.mul_(0)

    def forward(self, x):
        return torch.add(x, self.last(self.act(self.norm(x))))


class LibraryBlock(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.block = layers.ResBlock(channels, channels, 4)

    def forward(self, x):
        return self.block(x, torch.zeros(len(x), 4))


class Normed(nn.Module):
    """With as many groups as nn.GroupNorm is often given."""

    def __init__(self, channels, groups=32):
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels)
        self.last = layers.zero_init(nn.Conv2d(channels, channels, 1))

    def forward(self, x):
        return x + self.last(F.silu(self.norm(x)))


def normed_by_8(channels):
    return Normed(channels, groups=8)


@pytest.mark.parametrize("attempt", [Gated, WithoutBias, LibraryBlock, Normed, normed_by_8])
def test_other_blocks_that_start_as_nothing_are_correct(attempt):
    assert check("unet.identity", attempt, record=False)


def by_building(channels, out, told):
    return sum(parameter.numel() for parameter in layers.ResBlock(channels, out, told).parameters())


def test_other_ways_to_count_are_correct():
    assert check("unet.parameters", by_building, record=False)
    assert check("unet.parameters", lambda *sizes: torch.tensor(by_building(*sizes)), record=False)
    assert check("unet.memory", [4.0, torch.tensor(4), np.int64(16), 1], record=False)


class ForOneSize(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.added = nn.Parameter(torch.zeros(channels, 6, 5))

    def forward(self, x):
        return x + self.added * x


class InPlace(nn.Module):
    """Changes what it is given, and returns it."""

    def __init__(self, channels):
        super().__init__()
        self.block = _Residual(channels)

    def forward(self, x):
        with torch.no_grad():
            x += 0.5
        return self.block(x)


class Clamped(_Residual):
    def forward(self, x):
        return super().forward(x.clamp(-9, 9))


def counted_for_more_channels_only(channels, out, told):
    return by_building(channels, out, told) - (channels * out + out if out < channels else 0)


def times_one_more(x):
    return x * (1 + 1e-3)


def test_a_block_for_one_size_does_not_pass():
    verdict = check("unet.identity", ForOneSize, record=False)
    assert verdict.status == "not yet" and "size of tensor" in verdict.text


@pytest.mark.parametrize(
    ("name", "attempt"),
    [
        ("unet.time_features", lambda logsnr, width: times_one_more(features_in_numpy(logsnr, width))),
        ("unet.time_features", lambda logsnr, width: features_in_numpy(logsnr, width)[:, ::-1]),
        ("unet.time_features", lambda logsnr, width: features_in_numpy(logsnr, width + 2)),
        ("unet.attention", lambda q, k, v, heads: attention_by_heads(k, q, v, heads)),
        ("unet.attention", lambda q, k, v, heads: attention_by_heads(q, k, v, heads) + q),
        ("unet.attention", lambda q, k, v, heads: times_one_more(attention_by_heads(q, k, v, heads))),
        ("unet.attention", lambda q, k, v, heads: attention_by_heads(q, k, v, heads).flatten(2)),
        ("unet.identity", lambda channels: nn.Identity()),
        ("unet.identity", lambda channels: nn.Conv2d(channels, channels, 1)),
        ("unet.identity", lambda channels: nn.Sequential(_Residual(channels), nn.ReLU())),
        ("unet.identity", lambda channels: nn.Conv2d(channels, channels, 3)),
        ("unet.identity", InPlace),
        ("unet.identity", Clamped),
        ("unet.parameters", lambda channels, out, told: by_building(channels, out, told) + 1),
        ("unet.parameters", lambda channels, out, told: by_building(out, channels, told)),
        ("unet.parameters", counted_for_more_channels_only),
        ("unet.memory", (4, 4, 15, 1)),
        ("unet.memory", (4, 4, 16)),
    ],
)  # fmt: skip
def test_near_misses_do_not_pass(name, attempt):
    verdict = check(name, attempt, record=False)
    assert verdict.status == "not yet" and "broken" not in verdict.text
