"""Muon: every matrix in the network is moved by its momentum, made orthogonal first."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor, nn

# Jordan et al. 2024 chose this quintic for steepness at 0, so that small singular values grow fast;
# it brings them near 1, to between 0.7 and 1.2, and not to 1 exactly, which does no harm.
QUINTIC = (3.4445, -4.7750, 2.0315)


class Muon(torch.optim.Optimizer):
    """Muon for the weights of linear layers and convolutions, Adam for all else.

    A matrix of gradients is mostly a few directions of large singular values. With G = U S V^T, Muon moves
    along U V^T: every direction equally far (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/).
    The update is scaled by 0.2 sqrt(max(rows, columns)), so that its root mean square is about what Adam's
    is and one learning rate serves both (Liu et al. 2025, arXiv 2502.16982, section 2.2). A convolution
    counts as a matrix (out, in * height * width). Biases, norms and embeddings are Adam's.

    lr: for both kinds. momentum: of the matrices, Nesterov's. betas: Adam's.
    Raises ValueError for a network that has no such weights.
    """

    def __init__(
        self,
        net: nn.Module,
        lr: float,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
        fused: bool = False,
    ):
        matrices = [m.weight for m in net.modules() if isinstance(m, nn.Linear | nn.modules.conv._ConvNd)]
        if not matrices:
            raise ValueError("Muon needs linear layers or convolutions, and this network has none: use Adam")
        taken = set(map(id, matrices))
        super().__init__(matrices, {"lr": lr, "momentum": momentum})
        others = [parameter for parameter in net.parameters() if id(parameter) not in taken]
        self.adam = torch.optim.Adam(others or [torch.empty(0)], lr=lr, betas=betas, fused=fused)
        # one list of groups and one state for both: who sets a rate or saves the state need not know of two
        self.param_groups += self.adam.param_groups
        self.adam.state = self.state

    @torch.no_grad()
    def step(self, closure=None) -> None:
        """One update of all weights that have a gradient."""
        self.adam.step()
        group = self.param_groups[0]
        moved = [parameter for parameter in group["params"] if parameter.grad is not None]
        if not moved:
            return
        for parameter in moved:
            if "momentum" not in self.state[parameter]:
                self.state[parameter]["momentum"] = torch.zeros_like(parameter)
        momenta, grads = [self.state[p]["momentum"] for p in moved], [p.grad for p in moved]
        torch._foreach_lerp_(momenta, grads, 1 - group["momentum"])
        ahead = torch._foreach_lerp(grads, momenta, group["momentum"])
        # matrices of one shape go through the iteration together, several times quicker than one by one
        alike = defaultdict(list)
        for parameter, update in zip(moved, ahead, strict=True):
            alike[parameter.flatten(1).shape].append((parameter, update.flatten(1)))
        for shape, pairs in alike.items():
            size = 0.2 * max(shape) ** 0.5
            updates = orthogonalized(torch.stack([update for _, update in pairs]))
            for (parameter, _), update in zip(pairs, updates, strict=True):
                parameter.sub_(update.reshape(parameter.shape), alpha=group["lr"] * size)


def orthogonalized(matrices: Tensor, steps: int = 5) -> Tensor:
    """U V^T, roughly, of each matrix U S V^T; (..., M, N) -> same. A matrix of zeros stays one.

    Newton and Schulz's iteration with the polynomial of Jordan et al. (2024): only products, no
    decomposition. Singular values that are not tiny beside the largest land in 0.7 to 1.2.
    """
    a, b, c = QUINTIC
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x.reshape(-1, *x.shape[-2:])
    x = x.bfloat16() if x.is_cuda else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).reshape(matrices.shape).to(matrices.dtype)
