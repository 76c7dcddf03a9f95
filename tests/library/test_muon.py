import pytest
import torch
from torch import nn

from ddpm_lib.muon import Muon, orthogonalized


def small():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.Flatten(), nn.Linear(8, 4), nn.Linear(4, 4)
    )


def with_gradients(net):
    torch.manual_seed(1)
    for parameter in net.parameters():
        parameter.grad = torch.randn_like(parameter)
    return net


@pytest.mark.parametrize("shape", [(6, 4, 9), (2, 9, 4), (3, 5, 5), (7, 7)])
def test_orthogonalising_keeps_the_singular_vectors_and_levels_the_values(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, values, v = torch.linalg.svd(matrices, full_matrices=False)
    within = u.mT @ orthogonalized(matrices, 10) @ v.mT
    found = torch.diagonal(within, dim1=-2, dim2=-1)
    torch.testing.assert_close(within, torch.diag_embed(found), atol=1e-9, rtol=0)
    assert found.min() > 0.65 and found.max() < 1.25
    assert (values.amax(-1) / values.amin(-1)).min() > 1.5, "the input itself was nearly level"


def test_size_does_not_matter_and_zeros_stay():
    matrix = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(orthogonalized(matrix), orthogonalized(1e4 * matrix), atol=1e-4, rtol=0)
    assert torch.equal(orthogonalized(torch.zeros(2, 4, 6)), torch.zeros(2, 4, 6))


def test_without_gradients_nothing_moves():
    net = small()
    before = [parameter.clone() for parameter in net.parameters()]
    Muon(net, lr=0.1).step()
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), before, strict=True))


def test_the_first_step_is_the_papers():
    """Momentum (1 - mu) g, Nesterov's look ahead is along g; the step lr 0.2 sqrt(max) U V^T."""
    net = with_gradients(small())
    before = [parameter.detach().clone() for parameter in net.parameters()]
    Muon(net, lr=0.1).step()
    for index, rows in ((0, 8), (4, 4), (6, 4)):
        parameter = list(net.parameters())[index]
        gradient = parameter.grad.reshape(rows, -1)
        size = 0.2 * max(gradient.shape) ** 0.5
        expected = before[index] - 0.1 * size * orthogonalized(gradient).reshape(parameter.shape)
        torch.testing.assert_close(parameter.detach(), expected)


def test_momentum_looks_ahead():
    net = nn.Linear(3, 3, bias=False)
    optimizer, first, second = Muon(net, lr=1.0, momentum=0.9), torch.eye(3), torch.randn(3, 3)
    for gradient in (first, second):
        net.weight.grad, before = gradient, net.weight.detach().clone()
        optimizer.step()
    remembered = 0.9 * 0.1 * first + 0.1 * second
    ahead = 0.1 * second + 0.9 * remembered
    expected = before - 0.2 * 3**0.5 * orthogonalized(ahead)
    torch.testing.assert_close(net.weight.detach(), expected)


def test_all_else_is_adams():
    net, twin = with_gradients(small()), with_gradients(small())
    rest = [p for p in twin.parameters() if p.ndim == 1]
    ours, adam = Muon(net, lr=0.01), torch.optim.Adam(rest, lr=0.01, betas=(0.9, 0.99))
    for _ in range(3):
        ours.step(), adam.step()
    for mine, theirs in zip((p for p in net.parameters() if p.ndim == 1), rest, strict=True):
        assert torch.equal(mine, theirs)


def test_one_rate_serves_both_kinds_and_gradients_are_cleared():
    net = with_gradients(small())
    optimizer = Muon(net, lr=0.1)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = [parameter.detach().clone() for parameter in net.parameters()]
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in net.parameters())


def test_a_weight_without_a_gradient_is_left():
    net = with_gradients(small())
    net[0].weight.grad, before = None, net[0].weight.detach().clone()
    Muon(net, lr=0.1).step()
    assert torch.equal(net[0].weight, before)


def test_its_update_is_about_as_large_as_adams():
    for shape in ((8, 64), (64, 64), (64, 16)):
        net = nn.Linear(shape[1], shape[0], bias=False)
        net.weight.grad, before = torch.randn(shape), net.weight.detach().clone()
        Muon(net, lr=1.0).step()
        moved = (net.weight.detach() - before).square().mean().sqrt()
        assert 0.15 < moved < 0.25


def test_a_network_of_no_matrices_is_refused():
    with pytest.raises(ValueError, match="use Adam"):
        Muon(nn.GroupNorm(2, 4), lr=0.1)
