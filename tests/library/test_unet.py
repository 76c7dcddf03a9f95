"""Networks: every size, blocks that start as identities, time and label heard everywhere."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from conftest import close
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ddpm_lib.layers import Attention, Conditioning, Downsample, ResBlock, Upsample, group_norm, time_features
from ddpm_lib.unet import UNet, UNetConfig, anatomy, ddpm_cifar10, default_levels

SMALL = UNetConfig(image_size=8, channels=1, num_classes=3, width=8, multipliers=(1, 2), blocks=1, head_dim=8)


def awake(net: nn.Module, seed: int = 0) -> nn.Module:
    """Zero-initialised outputs hide everything before them: give every weight a value."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            if not parameter.any():
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return net.eval()


def inputs(config: UNetConfig, count: int = 2):
    x = torch.randn(count, config.channels, config.image_size, config.image_size)
    return x, torch.linspace(-3, 3, count), torch.arange(count) % max(config.num_classes, 1)


@pytest.mark.parametrize("size", [28, 32, 64])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("patch", "multipliers"), [(1, (1, 2, 2)), (2, (1, 2))])
@pytest.mark.parametrize("modulation", ["scale_shift", "add"])
def test_sizes_channels_and_patches(size, channels, patch, multipliers, modulation):
    # 28 -> 14 -> 7: the grid that attention sees is odd
    config = UNetConfig(size, channels, 10, 8, multipliers, 1, (1,), 8, patch, 0.0, modulation)
    x, logsnr, label = inputs(config)
    out = awake(UNet(config))(x, logsnr, label)
    assert out.shape == x.shape and out.isfinite().all() and out.std() > 0


@pytest.mark.parametrize("size", [12, 20, 36])
def test_sizes_that_are_no_power_of_two(size):
    config = dataclasses.replace(SMALL, image_size=size, multipliers=(1, 2, 2))
    x, logsnr, label = inputs(config)
    assert awake(UNet(config))(x, logsnr, label).shape == x.shape


def test_a_network_takes_pictures_that_are_not_square():
    net = awake(UNet(SMALL))
    assert net(torch.randn(1, 1, 6, 10), torch.zeros(1)).shape == (1, 1, 6, 10)


@pytest.mark.parametrize(
    ("size", "levels", "patch", "padded"),
    [
        (30, 3, 1, 32),
        (27, 2, 1, 28),
        (27, 1, 2, 28),
        (33, 3, 2, 40),
        (3, 3, 1, 4),
        (5, 4, 1, 8),
        (31, 5, 1, 32),
    ],
)
@pytest.mark.parametrize("modulation", ["scale_shift", "add"])
def test_a_size_that_does_not_divide_is_padded_with_its_edge_and_cut(size, levels, patch, padded, modulation):
    config = UNetConfig(size, 1, 3, 8, (1,) * levels, 1, (), 8, patch, 0.0, modulation)
    x, logsnr, label = inputs(config)
    assert not UNet(config)(x, logsnr, label).any()
    net = awake(UNet(config))
    with torch.no_grad():
        out, rows = net(x, logsnr, label), torch.arange(padded).clamp(max=size - 1)
        wide = x[..., rows, :][..., rows]
        assert out.shape == x.shape and out.std() > 0
        assert torch.equal(out, net(wide, logsnr, label)[..., :size, :size])
        # each side for itself
        assert net(x[..., :2], logsnr, label).shape == (2, 1, size, 2)


@pytest.mark.parametrize("size", [(4, 4), (8, 12), (28, 28)])
def test_a_size_that_divides_is_not_touched(size, monkeypatch):
    """Nothing may be added to what every model before had: not an operation."""
    net, calls = awake(UNet(dataclasses.replace(SMALL, multipliers=(1, 2, 2)))), []
    pad = nn.functional.pad
    monkeypatch.setattr(nn.functional, "pad", lambda *given, **how: calls.append(given) or pad(*given, **how))
    with torch.no_grad():
        out = net(torch.randn(1, 1, *size), torch.zeros(1))
    assert calls == [] and out.shape[2:] == size and out.is_contiguous()
    with torch.no_grad():
        net(torch.randn(1, 1, size[0], size[1] + 1), torch.zeros(1))
    assert len(calls) == 1


@pytest.mark.parametrize(("size", "levels", "patch"), [(1, 2, 1), (2, 3, 1), (4, 4, 1), (1, 1, 2), (7, 2, 7)])
def test_a_picture_that_would_be_mostly_padding_is_refused(size, levels, patch):
    given = {"multipliers": (1,) * levels, "patch": patch, "attention": ()}
    with pytest.raises(
        ValueError, match=f"image_size {size} is too small for patch {patch} and {levels} levels"
    ):
        UNetConfig(size, **given)
    UNetConfig(patch * 2 ** (levels - 1) // 2 + 1, **given)


def before(size: int) -> tuple[int, tuple[int, ...], int]:
    """Patch, multipliers and coarsest grid as they were when no size was padded."""
    grid, multipliers = size // (2 - size % 2), (1,)
    while grid > 8 and grid % 2 == 0:
        grid, multipliers = grid // 2, (*multipliers, 2)
    return 2 - size % 2, multipliers, grid


@pytest.mark.parametrize("patch", [None, 1, 2, 3, 4])
def test_every_size_has_levels_that_end_in_a_small_grid(patch):
    for size in range(8, 257):
        found, multipliers, attention = default_levels(size, patch)
        config = UNetConfig(size, 1, 0, 8, multipliers, 1, attention, 8, found)
        coarsest = math.ceil(size / config.factor)
        assert attention == (len(multipliers) - 1,) and coarsest <= 16 and multipliers[:1] == (1,)
        # no more levels than it takes, and less padding than one position of the coarsest grid
        assert len(multipliers) == 1 or coarsest > 4
        assert patch is None or found == patch
        was = before(size)
        if patch is None and was[2] <= 16:
            assert (found, multipliers, coarsest) == was


@pytest.mark.parametrize("size", [8, 13, 27, 30, 38, 60, 66, 131, 255])
def test_the_parts_of_a_network_of_these_levels_attend_on_small_grids_only(size):
    patch, multipliers, attention = default_levels(size)
    with torch.device("meta"):
        net = UNet(UNetConfig(size, 1, 0, 8, multipliers, 1, attention, 8, patch))
    parts = anatomy(net)
    sides = {part.level: part.made[-1] for part in parts if part.kind in ("stem", "block")}
    assert list(sides) == list(range(len(multipliers))) and size <= sides[0] * patch < 2 * size
    assert all(side == sides[0] >> level for level, side in sides.items())
    # the coarsest level's three, and the middle's
    attending = [part.made[1:] for part in parts if part.kind == "attention"]
    assert attending == [(math.ceil(size / net.config.factor),) * 2] * 4 and attending[0][0] <= 16


@pytest.mark.parametrize("size", [8, 17, 28, 31, 38, 55])
def test_a_network_of_these_levels_learns(size):
    patch, multipliers, attention = default_levels(size)
    net = awake(UNet(UNetConfig(size, 3, 2, 8, multipliers, 1, attention, 8, patch))).train()
    x, logsnr, label = inputs(net.config)
    out = net(x, logsnr, label)
    out.square().sum().backward()
    assert out.shape == x.shape and [name for name, p in net.named_parameters() if not p.grad.any()] == []


def test_levels_for_no_picture_are_refused():
    for wrong in ((0, None), (28, 0), (-3, 1)):
        with pytest.raises(ValueError, match="at least 1, got"):
            default_levels(*wrong)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"modulation": "film"}, "'film': choose from scale_shift, add"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\)"),
        ({"dropout": -0.1}, "dropout must be at least 0, got -0.1"),
        ({"dropout": math.nan}, "dropout must be a finite number, got nan"),
        ({"width": 0}, "width must be at least 2, got 0"),
        ({"width": 33}, "width must be even"),
        ({"patch": 0}, "patch must be at least 1"),
        ({"blocks": 0}, "blocks must be at least 1"),
        ({"channels": 0}, "channels must be at least 1"),
        ({"head_dim": 0}, "head_dim must be at least 1"),
        ({"image_size": 0}, "image_size must be at least 1, got 0"),
        ({"image_size": 4097}, "image_size must be at most 4096, got 4097"),
        ({"image_size": 28.0}, "image_size must be a whole number, got 28.0"),
        ({"image_size": "28"}, "image_size must be a whole number, got '28'"),
        ({"image_size": None}, "image_size must be a whole number, got None"),
        ({"channels": True}, "channels must be a whole number, got True"),
        ({"blocks": math.nan}, "blocks must be a whole number, got nan"),
        ({"multipliers": 2}, "multipliers must be a list of whole numbers, got 2"),
        ({"multipliers": (1, 2.0)}, "multipliers must be a list of whole numbers"),
        ({"multipliers": (1,) * 5000}, "too small for patch 1 and 5000 levels"),
        ({"attention": "1"}, "attention must be a list of whole numbers, got '1'"),
        ({"modulation": ["add"]}, "modulation must be a text"),
        ({"num_classes": -1}, "num_classes must be at least 0, got -1"),
        ({"multipliers": ()}, "multipliers must be"),
        ({"multipliers": (1, 0)}, "multipliers must be"),
        ({"attention": (2,)}, "levels from 0 to 1"),
    ],
)
def test_impossible_networks_are_refused(wrong, words):
    with pytest.raises(ValueError, match=words) as caught:
        UNetConfig(**wrong)
    assert "\n" not in str(caught.value)


def test_numbers_of_numpy_become_pythons():
    config = UNetConfig(
        np.int64(28), multipliers=np.array([1, 2]).tolist(), dropout=np.float32(0.5), width=np.uint8(8)
    )
    assert config == UNetConfig(28, dropout=0.5, width=8)
    assert json.loads(json.dumps(dataclasses.asdict(config)))["image_size"] == 28


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="48 channels .* heads of 32"):
        Attention(48, 32)


def test_a_config_survives_json():
    config = dataclasses.replace(SMALL, attention=(0, 1))
    assert UNetConfig(**json.loads(json.dumps(dataclasses.asdict(config)))) == config


def test_ddpms_cifar10_network_has_its_35_7_million_parameters():
    with torch.device("meta"):
        net = UNet(ddpm_cifar10())
    assert sum(parameter.numel() for parameter in net.parameters()) == 35_746_307


# ---------------------------------------------------------------- starting as nothing


def test_a_fresh_network_answers_zero():
    for config in (SMALL, dataclasses.replace(SMALL, patch=2, modulation="add")):
        x, logsnr, label = inputs(config)
        assert not UNet(config)(x, logsnr, label).any()


@pytest.mark.parametrize("modulation", ["scale_shift", "add"])
def test_a_fresh_block_is_the_identity(modulation):
    x = torch.randn(2, 8, 5, 7)
    block = ResBlock(8, 8, 16, modulation=modulation)
    assert torch.equal(block(x, torch.randn(2, 16)), x)
    wider = ResBlock(8, 12, 16, modulation=modulation)
    assert torch.equal(wider(x, torch.randn(2, 16)), wider.skip(x))
    # but not dead: its last layer has a gradient
    block(x, torch.randn(2, 16)).square().sum().backward()
    assert block.conv_out.weight.grad.any()


def test_fresh_attention_is_the_identity():
    x = torch.randn(2, 16, 3, 5)
    layer = Attention(16, 8)
    assert torch.equal(layer(x), x)
    layer(x).square().sum().backward()
    assert layer.out.weight.grad.any()


# ---------------------------------------------------------------- attention


@settings(max_examples=15)
@example(16, 17, (16, 4))
@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([(8, 8), (16, 4), (24, 24), (32, 8)]))
def test_attention_is_a_plain_softmax_at_any_height_and_width(height, width, shape):
    channels, head_dim = shape
    torch.manual_seed(height * 10 + width)
    layer, x = awake(Attention(channels, head_dim)), torch.randn(2, channels, height, width)
    with torch.no_grad():
        weight, bias = layer.qkv.weight[:, :, 0, 0], layer.qkv.bias
        tokens = layer.norm(x).flatten(2).transpose(1, 2)
        q, k, v = (tokens @ weight.T + bias).chunk(3, dim=2)
        heads = []
        for i in range(channels // head_dim):
            part = slice(i * head_dim, (i + 1) * head_dim)
            scores = q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(head_dim)
            heads.append(scores.softmax(dim=2) @ v[..., part])
        mixed = torch.cat(heads, dim=2) @ layer.out.weight[:, :, 0, 0].T + layer.out.bias
        close(layer(x), x + mixed.transpose(1, 2).reshape(x.shape), 1e-5)


@pytest.mark.parametrize("side", [16, 32])
def test_attention_on_a_large_grid_keeps_no_weights_for_the_backward_pass(side):
    layer, kept = awake(Attention(32, 8)), []

    def keep(tensor):
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        layer(torch.randn(1, 32, side, side))
    # queries, keys and values together; the weights would be side^4 numbers for each of four heads
    assert max(kept) <= 3 * 32 * side**2 < side**4


def test_attention_does_not_care_where_pixels_stand():
    layer, x = awake(Attention(16, 8)), torch.randn(1, 16, 4, 6)
    order = torch.randperm(24)
    moved = x.flatten(2)[:, :, order].view(1, 16, 6, 4)
    with torch.no_grad():
        close(layer(moved).flatten(2), layer(x).flatten(2)[:, :, order], 1e-5)
        # and every pixel hears every other
        poked = x.clone()
        poked[0, :, 0, 0] += 3
        assert ((layer(poked) - layer(x)).abs().amax(1) > 1e-6).all()


# ---------------------------------------------------------------- time and label


def blocks_of(net):
    return {name: module for name, module in net.named_modules() if isinstance(module, ResBlock)}


@pytest.mark.parametrize("modulation", ["scale_shift", "add"])
@pytest.mark.parametrize("what", ["time", "label"])
def test_time_and_label_reach_every_block_by_themselves(modulation, what):
    config = dataclasses.replace(SMALL, multipliers=(1, 2, 2), blocks=2, modulation=modulation)
    net = awake(UNet(config))
    x, logsnr, label = inputs(config)
    first, seen, given_before = {}, set(), {}

    def record(name):
        def hook(module, args, out):
            # the same input again, with the other conditioning: no news from earlier blocks
            if name in first:
                out_same_input = module.forward(given_before[name], args[1])
                if not torch.allclose(out_same_input, first[name], atol=1e-6):
                    seen.add(name)
            else:
                first[name], given_before[name] = out, args[0]

        return hook

    for name, block in blocks_of(net).items():
        block.register_forward_hook(record(name))
    with torch.no_grad():
        before = net(x, logsnr, label)
        after = net(x, logsnr + 0.5, label) if what == "time" else net(x, logsnr, (label + 1) % 3)
    # 3 levels of 2 down, 2 in the middle, 3 levels of 3 up
    assert seen == set(blocks_of(net)) and len(seen) == 17
    assert not torch.allclose(before, after, atol=1e-6)


def test_no_label_is_said_in_three_ways():
    net = awake(UNet(SMALL))
    x, logsnr, _ = inputs(SMALL, 4)
    with torch.no_grad():
        none = net(x, logsnr)
        assert torch.equal(net(x, logsnr, torch.full((4,), -1)), none)
        mixed = net(x, logsnr, torch.tensor([0, -1, 2, -1]))
        close(mixed[[1, 3]], none[[1, 3]], 1e-5)
        assert ((mixed[[0, 2]] - none[[0, 2]]).abs().amax((1, 2, 3)) > 1e-3).all()
        # the null label is a label of its own, learned like the others
        for label in range(3):
            assert not torch.allclose(net(x, logsnr, torch.full((4,), label)), none, atol=1e-4)


def test_labels_that_do_not_exist_are_refused():
    x, logsnr, _ = inputs(SMALL)
    with pytest.raises(ValueError, match="label 3 is out of range.*0 to 2.*-1 for none"):
        # one too many would otherwise be read as the null label, and pass unseen
        UNet(SMALL)(x, logsnr, torch.tensor([0, 3]))
    without = UNet(dataclasses.replace(SMALL, num_classes=0))
    with pytest.raises(ValueError, match="without labels"):
        without(x, logsnr, torch.tensor([0, 1]))
    assert torch.equal(without(x, logsnr, torch.tensor([-1, -1])), without(x, logsnr))


def test_label_is_added_to_the_time_embedding():
    told = Conditioning(8, 16, num_classes=3)
    logsnr = torch.tensor([-2.0, 0.0, 5.0])
    difference = told(logsnr, torch.tensor([0, 1, 2])) - told(logsnr)
    close(difference.detach(), (told.label.weight[:3] - told.label.weight[3]).detach(), 1e-6)


def test_time_features_tell_neighbours_apart_and_never_overflow():
    logsnr = torch.linspace(-20, 20, 2001)
    features = time_features(logsnr, 32)
    assert features.shape == (2001, 32) and features.abs().max() <= 1
    gaps = (features[1:] - features[:-1]).norm(dim=1)
    assert gaps.min() > 0.02
    # no two distant times look alike either
    distance = torch.cdist(features[::20], features[::20]) + 10 * torch.eye(101)
    assert distance.min() > 0.3
    ends = time_features(torch.tensor([math.inf, -math.inf]), 32)
    assert torch.equal(ends, time_features(torch.tensor([20.0, -20.0]), 32))


# ---------------------------------------------------------------- images do not mix


def test_a_permuted_batch_gives_permuted_answers():
    net = awake(UNet(SMALL))
    x, logsnr, label = inputs(SMALL, 5)
    order = torch.tensor([3, 0, 4, 1, 2])
    with torch.no_grad():
        close(net(x[order], logsnr[order], label[order]), net(x, logsnr, label)[order], 1e-5)
        close(net(x[:1], logsnr[:1], label[:1]), net(x, logsnr, label)[:1], 1e-5)
        poked = x.clone()
        poked[0] += 1
        close(net(poked, logsnr, label)[1:], net(x, logsnr, label)[1:], 1e-6)


def test_patches_keep_the_place_of_every_pixel():
    """With no blur from the network, what a patch network says at a pixel depends on that pixel's patch."""
    config = dataclasses.replace(SMALL, patch=2, multipliers=(1,), attention=(), image_size=16)
    net = awake(UNet(config))
    x, logsnr, _ = inputs(config, 1)
    poked = x.clone()
    poked[0, 0, 5, 9] += 1
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    # the stem's middle tap alone, so that only one patch hears of it
    stem = net.stem.weight.clone()
    net.stem.weight.zero_()
    net.stem.weight[:, :, 1, 1] = stem[:, :, 1, 1]
    unshuffled = nn.functional.pixel_unshuffle(poked - x, 2)
    moved = net.stem(unshuffled) - net.stem(torch.zeros_like(unshuffled))
    assert moved.abs().amax(1).nonzero().tolist() == [[0, 2, 4]]
    assert torch.equal(nn.functional.pixel_shuffle(unshuffled, 2), poked - x)


def test_up_and_down_halve_and_double():
    x = torch.randn(2, 4, 6, 10)
    assert Downsample(4)(x).shape == (2, 4, 3, 5) and Upsample(4)(x).shape == (2, 4, 12, 20)


@pytest.mark.parametrize("channels", [1, 2, 3, 8, 32, 48, 64, 100, 256])
def test_groups_divide_the_channels(channels):
    norm = group_norm(channels)
    assert channels % norm.num_groups == 0 and norm.num_groups <= 32
    # one channel alone in its group is normalised to what it was before time was added to it
    assert channels == 1 or channels // norm.num_groups >= 2


def test_every_weight_learns():
    config = dataclasses.replace(SMALL, patch=2, multipliers=(1, 2), attention=(0, 1))
    net = awake(UNet(config)).train()
    x, logsnr, label = inputs(config, 3)
    net(x, logsnr, label).square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


# ---------------------------------------------------------------- what it is made of


BODIES = [
    SMALL,
    dataclasses.replace(SMALL, image_size=16, channels=3, multipliers=(1, 2, 2), blocks=2, attention=(0, 2)),
    dataclasses.replace(SMALL, image_size=16, patch=2, num_classes=0, multipliers=(1,) * 3, modulation="add"),
    dataclasses.replace(SMALL, multipliers=(1,), blocks=12, attention=()),
]


@pytest.mark.parametrize("config", BODIES)
@pytest.mark.parametrize("size", [8, 16, 32, 23])
def test_the_parts_of_a_network_are_all_of_it(config, size):
    net = UNet(config)
    parts = anatomy(net, size)
    assert sum(part.parameters for part in parts) == sum(parameter.numel() for parameter in net.parameters())
    x = torch.randn(1, config.channels, size, size)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        net(x, torch.zeros(1))
    assert 2 * sum(part.macs for part in parts) == counter.get_total_flops()
    by_module = counter.get_flop_counts()
    for part in parts:
        assert 2 * part.macs == sum(by_module[f"UNet.{part.name}"].values()), part.name


@pytest.mark.parametrize(
    "config", [*BODIES, *(dataclasses.replace(BODIES[1], image_size=size) for size in (5, 21))]
)
def test_the_parts_are_what_a_real_picture_passes(config):
    net, parts, passed = awake(UNet(config)), {part.name: part for part in anatomy(UNet(config))}, []
    out = {}

    def record(name):
        def hook(module, args, made):
            passed.append(name)
            out[name] = made
            part = parts[name]
            assert args[0].shape[1:] == part.given and made.shape[1:] == part.made
            if part.skip:
                across = out[part.skip]
                assert torch.equal(args[0][:, -across.shape[1] :], across)

        return hook

    for name, module in net.named_modules():
        if name in parts:
            module.register_forward_hook(record(name))
    x, logsnr, label = inputs(config)
    with torch.no_grad():
        net(x, logsnr, label if config.num_classes else None)
    assert passed == list(parts)
    skipped = [part.skip for part in parts.values() if part.skip]
    assert len(set(skipped)) == len(skipped) == len(config.multipliers) * (config.blocks + 1)
    fine = math.ceil(config.image_size / config.factor) * config.factor // config.patch
    assert all(part.made[-1] == fine >> part.level for part in parts.values() if part.level >= 0)


def test_looking_at_the_parts_leaves_the_network_alone():
    net = awake(UNet(SMALL)).double()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    anatomy(net)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(module._forward_hooks for module in net.modules())
    with pytest.raises(ValueError, match="image_size must be at least 1, got 0"):
        anatomy(net, 0)
