"""The exercises of chapter 8, with their answers and the slips that people make."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .compare import apart
from .engine import Exercise, Slip

TITLE = "CIFAR-10 in colour, and the 64 x 64 recipe reopened"

# --- pixels.shrink


def _stretching(small: int) -> Tensor:
    """(2 small, small): one side of a picture, enlarged by two with the library's bilinear weights."""
    unit = torch.eye(small, dtype=torch.float64)[:, None]
    return F.interpolate(unit, size=2 * small, mode="linear", align_corners=False)[:, 0].T


def _shrink(large, E):
    back = torch.linalg.pinv(E)
    return back @ large @ back.T


def _shrink_inputs(generator: torch.Generator) -> tuple:
    small = int(torch.randint(4, 9, (), generator=generator))
    E = _stretching(small)
    picture = torch.randn(2, 3, small, small, generator=generator, dtype=torch.float64)
    return E @ picture @ E.T, E


def _explain_shrink(arguments: tuple, got: Tensor, wanted: Tensor) -> str:
    large, E = arguments
    if (E @ got @ E.T - large).abs().max() < 1e-4:
        return "Enlarged again it is the large picture, but it is not quite the small one: look at the precision."
    off = 100 * (got - wanted).square().mean().sqrt() / wanted.std()
    return f"The small picture is missed by {off.item():.2g} % of its own spread. Enlarge your answer again: is it what you were given?"


# --- index.all_steps


def _all_steps(u, T):
    return (u * T).long(), torch.arange(T - 1, -1, -1)


def _steps_inputs(generator: torch.Generator) -> tuple:
    # more entries than a byte can count
    T = int(torch.randint(260, 400, (), generator=generator))
    index = torch.cat([torch.arange(T), torch.randint(T, (200,), generator=generator)])
    # away from the edges, where rounding would decide; but 0 is one of the numbers
    inside = 0.1 + 0.8 * torch.rand(len(index), generator=generator, dtype=torch.float64)
    inside[0] = 0
    return (index + inside) / T, T


def _explain_steps(arguments: tuple, got: tuple, wanted: tuple) -> str:
    T = arguments[1]
    for name, entries in zip(("Training", "The loop"), got, strict=True):
        if entries.frac().any():
            return (
                f"{name} uses {_first(entries.frac() != 0, entries)}. Entries of a table have whole numbers."
            )
        seen = set(entries.long().flatten().tolist())
        if beyond := sorted(seen - set(range(T))):
            return (
                f"{name} asks for entry {beyond[0]}, and the table of T = {T} has the entries 0 to {T - 1}."
            )
        if missing := sorted(set(range(T)) - seen):
            return f"{name} never uses entry {missing[0]} of the table."
    return "Every entry is used. Look at the order, and at the sizes of the shares."


def _first(where: Tensor, entries: Tensor) -> str:
    return f"{entries[where].flatten()[0].item():.6g}"


# --- flips.best_guess


def _guess_flipped(prior, turn, width=lambda s: s * s, axis=1):
    """A softmax over the points and their mirror images; what a slip gets wrong is passed in."""

    def guess(x, points, a, s, p):
        both = torch.cat([points, turn(points)])
        weights = prior(p) if callable(prior) else prior
        log_prior = torch.tensor(weights, dtype=x.dtype).log().repeat_interleave(len(points))
        distance2 = (x[:, None] - a * both).square().flatten(2).sum(2)
        weight = torch.softmax(log_prior - distance2 / (2 * width(s)), dim=axis)
        return (weight @ both.flatten(1)).view_as(x)

    return guess


def _with_weights(weigh: Callable) -> Callable:
    """The points and their mirror images mixed with weights made of the squared distances over 2 s^2 and the chances."""

    def guess(x, points, a, s, p):
        both = torch.cat([points, _mirror(points)])
        chances = torch.tensor((1 - p, p), dtype=x.dtype).repeat_interleave(len(points))
        away = (x[:, None] - a * both).square().flatten(2).sum(2) / (2 * s**2)
        return (weigh(away, chances) @ both.flatten(1)).view_as(x)

    return guess


def _nearest(x, points, a, s, p):
    both = torch.cat([points, _mirror(points)])
    return both[(x[:, None] - a * both).square().flatten(2).sum(2).argmin(1)]


def _mirror(points: Tensor) -> Tensor:
    return points.flip(-1)


_flipped = _guess_flipped(lambda p: (1 - p, p), _mirror)


def _plain(x, points, a, s, p):
    return _guess_flipped((1.0, 0.0), _mirror)(x, points, a, s, p)


def _averaged(x, points, a, s, p):
    """Two guesses, mixed without asking which of them x speaks for."""
    return (1 - p) * _plain(x, points, a, s, p) + p * _plain(x, points.flip(-1), a, s, p)


def _flip_inputs(generator: torch.Generator) -> tuple:
    points = torch.randn(4, 3, 4, generator=generator, dtype=torch.float64)
    p = 0.1 + 0.3 * torch.rand((), generator=generator, dtype=torch.float64).item()
    angle = 0.9 + 0.4 * torch.rand((), generator=generator, dtype=torch.float64).item()
    a, s = math.cos(angle), math.sin(angle)
    # half-way between a picture and its mirror image, so that both count
    clean = points[torch.randint(4, (6,), generator=generator)]
    share = torch.rand(6, 1, 1, generator=generator, dtype=torch.float64)
    noise = torch.randn(clean.shape, generator=generator, dtype=torch.float64)
    return a * (share * clean + (1 - share) * clean.flip(-1)) + s * noise, points, a, s, p


def _explain_flips(arguments: tuple, got: Tensor, wanted: Tensor) -> str:
    x, points, _, _, _ = arguments
    both = torch.cat([points, points.flip(-1)]).flatten(1)
    weights = torch.linalg.lstsq(both.T, got.flatten(1).T).solution
    if (both.T @ weights - got.flatten(1).T).abs().max() > 1e-5:
        return "It is no mixture of the points and their mirror images."
    sums = weights.sum(0)
    if (sums - 1).abs().max() > 1e-5:
        row = int((sums - 1).abs().argmax())
        return f"It is a mixture of the right pictures, but the weights do not sum to 1: for picture {row} their sum is {apart(sums[row], 1, 3)[0]}."
    return (
        "It is a mixture of the right pictures, and the weights sum to 1. But they are not the right weights."
    )


# --- compute.steps


def _cost(convolutions, attention, told, k):
    return k**2 * convolutions + k**4 * attention + told


def _steps(flop, convolutions, attention, told, k, batch):
    return int(flop // (6 * batch * _cost(convolutions, attention, told, k)))


def _compute_inputs(generator: torch.Generator) -> tuple:
    def between(low: float, high: float) -> float:
        return low + (high - low) * torch.rand((), generator=generator, dtype=torch.float64).item()

    convolutions = round(between(5e7, 2e8))
    attention, told = round(between(0.05, 0.4) * convolutions), round(between(0.05, 0.3) * convolutions)
    k, batch = (int(torch.randint(low, high, (), generator=generator)) for low, high in ((2, 6), (16, 129)))
    # far from a whole number, and nearer to the next one: rounding to the nearest is seen
    steps = between(800, 4000) // 1 + between(0.6, 0.8)
    return (
        steps * 6 * batch * _cost(convolutions, attention, told, k),
        convolutions,
        attention,
        told,
        k,
        batch,
    )


def _other_cost(cost, factor=6):
    return lambda flop, c, a, told, k, batch: int(flop // (factor * batch * cost(c, a, told, k)))


def _explain_compute(arguments: tuple, got: object, wanted: object) -> str:
    steps, ratio = float(got), float(got / wanted)
    if steps != round(steps):
        return f"It is {steps:,.6g}: steps are whole."
    if abs(ratio - 1) < 0.05:
        away = abs(steps - float(wanted))
        return f"It is {steps:,.0f}, which is {away:.0f} too {'many' if ratio > 1 else 'few'}."
    return f"It is {steps:,.0f}, {apart(ratio, 1, 3)[0]} times as many steps as the compute pays for."


EXERCISES = (
    Exercise(
        "pixels.shrink",
        "There and back",
        _shrink,
        (
            Slip("That is the average of blocks of 2 x 2. Bilinear enlarging smooths, so the average is a blurred picture.", lambda large, E: F.avg_pool2d(large, 2)),
            Slip("That is every second pixel. Each of them is already a mixture of neighbours.", lambda large, E: large[..., ::2, ::2]),
            Slip("That is E^T L E. It would be right if the columns of E were at right angles and of length 1.", lambda large, E: E.T @ large @ E),
            Slip("That is E^T L E / 4. It would be right if E^T E were twice the identity, and for bilinear weights it is not.", lambda large, E: E.T @ large @ E / 4),
            Slip(
                "Rows are shrunk, columns are not: E stands on both sides of the picture.",
                lambda large, E: torch.linalg.pinv(E) @ large,
                (lambda large, E: large @ torch.linalg.pinv(E).T,),
            ),
            Slip(
                "One side is shrunk by the inverse of E, and the other by E itself. Both need the inverse.",
                lambda large, E: torch.linalg.pinv(E) @ large @ E,
                (lambda large, E: E.T @ large @ torch.linalg.pinv(E).T,),
            ),
            Slip("The pictures are mirrored: the order of the columns is turned round.", lambda large, E: _shrink(large, E).flip(-1)),
            Slip("Some numbers of the small pictures lie outside -1 and 1. It looks as if they were clipped.", lambda large, E: _shrink(large, E).clamp(-1, 1), (lambda large, E: _shrink(large, E).clamp(0, 1),)),
            Slip("It looks as if the channels were averaged. Each channel is a picture of its own.", lambda large, E: _shrink(large, E).mean(1, keepdim=True), (lambda large, E: _shrink(large, E).mean(1), lambda large, E: _shrink(large, E).mean(1, keepdim=True).expand(-1, large.shape[1], -1, -1))),
            Slip("These are the large pictures.", lambda large, E: large.clone(), (lambda large, E: E @ _shrink(large, E) @ E.T,)),
        ),
        _shrink_inputs,
        apart=lambda arguments: arguments[1].shape,
        explain=_explain_shrink,
    ),
    Exercise(
        "index.all_steps",
        "No step left out",
        _all_steps,
        (
            Slip("u T has a fraction, and an entry has none: whole numbers are asked for.", lambda u, T: (u * T, list(range(T - 1, -1, -1)))),
            Slip("`ceil` minus 1 is the same as cutting off the fraction, except for u = 0: there it gives -1.", lambda u, T: ((u * T).ceil().long() - 1, list(range(T - 1, -1, -1)))),
            Slip(
                "The entries of training do not fit into 8 bits: a byte counts to 255 and begins anew.",
                lambda u, T: ((u * T).long().to(torch.uint8), list(range(T - 1, -1, -1))),
                (lambda u, T: ((u * T).long().to(torch.int8), list(range(T - 1, -1, -1))),),
            ),
            Slip("That is the bug: neither training nor the loop ever uses entry 0.", lambda u, T: (1 + (u * (T - 1)).long(), list(range(T - 1, 0, -1)))),
            Slip("Training is right. The loop stops before entry 0: a range leaves out its end.", lambda u, T: ((u * T).long(), list(range(T - 1, 0, -1)))),
            Slip("The loop is right. Training never draws entry 0.", lambda u, T: (1 + (u * (T - 1)).long(), list(range(T - 1, -1, -1)))),
            Slip("These are the paper's numbers, 1 to T. This table has no entry T, and its entry 0 is a push.", lambda u, T: (1 + (u * T).long(), list(range(T, 0, -1)))),
            Slip("Training is right. The loop goes from the clean end to the noisy one.", lambda u, T: ((u * T).long(), list(range(T)))),
            Slip("Training is right. The loop begins with an entry that the table does not have.", lambda u, T: ((u * T).long(), list(range(T, -1, -1)))),
            Slip("The loop is right. It looks as if u (T - 1) was rounded: then the first entry and the last are half as likely as the others.", lambda u, T: ((u * (T - 1)).round().long(), list(range(T - 1, -1, -1)))),
            Slip("The loop is right. It looks as if u T was rounded: then entry 0 is half as likely as the others, and there is an entry T.", lambda u, T: ((u * T).round().long(), list(range(T - 1, -1, -1))), (lambda u, T: ((u * T).round().long().clamp(max=T - 1), list(range(T - 1, -1, -1))),)),
            Slip("The loop is right. Training never uses the last entry: u stays below 1, so u (T - 1) stays below T - 1.", lambda u, T: ((u * (T - 1)).long(), list(range(T - 1, -1, -1)))),
            Slip("The loop is right. u in [0, 1) times T + 1 reaches entry T, which the table does not have.", lambda u, T: ((u * (T + 1)).long(), list(range(T - 1, -1, -1)))),
            Slip("The loop is right. The entries of training run from 1 to T, and the table has 0 to T - 1.", lambda u, T: (1 + (u * T).long(), list(range(T - 1, -1, -1))), (lambda u, T: ((u * T).ceil().long(), list(range(T - 1, -1, -1))),)),
            Slip("The loop is right. The entries of training were sorted. Each stands where its u stood.", lambda u, T: ((u * T).long().sort().values, list(range(T - 1, -1, -1)))),
            Slip("Training is right. The loop runs from T to 1, and the table has the entries T - 1 to 0.", lambda u, T: ((u * T).long(), list(range(T, 0, -1)))),
            Slip("The loop is right. All entries are equally likely, but the order is turned round: the smallest u belongs to entry 0.", lambda u, T: (T - 1 - (u * T).long(), list(range(T - 1, -1, -1)))),
        ),
        _steps_inputs,
        explain=_explain_steps,
    ),
    Exercise(
        "flips.best_guess",
        "The leak, exactly",
        _flipped,
        (
            Slip("That is the best guess without flips: the mirror images are missing.", _plain),
            Slip("Points and mirror images have equal weights before you look. They should have 1 - p and p.", _guess_flipped((0.5, 0.5), _mirror)),
            Slip("The two shares are exchanged: p is the share of mirror images.", _guess_flipped(lambda p: (p, 1 - p), _mirror)),
            Slip("Those are two guesses, mixed with fixed weights. x tells which of the two is likely: put all the points into one softmax.", _averaged),
            Slip("The pictures are turned upside down. A flip exchanges left and right, the last axis.", _guess_flipped(lambda p: (1 - p, p), lambda points: points.flip(-2))),
            Slip("The chances were added to the exponents. A chance multiplies the exponential: what is that in the exponent?", _guess_flipped(lambda p: (math.exp(1 - p), math.exp(p)), _mirror)),
            Slip("The softmax runs over the noisy pictures. For each of them the weights of all points sum to 1.", _guess_flipped(lambda p: (1 - p, p), _mirror, axis=0)),
            Slip("x is compared with the pictures themselves. Noisy versions of a picture lie around a times the picture.", lambda x, points, a, s, p: _flipped(x, points, 1.0, s, p)),
            Slip("It looks as if the distance was divided by 2 s, and not by 2 s^2.", _guess_flipped(lambda p: (1 - p, p), _mirror, lambda s: s)),
            Slip("It looks as if the distance was divided by s^2. A normal density has a 2 there as well.", _guess_flipped(lambda p: (1 - p, p), _mirror, lambda s: s * s / 2)),
            Slip("It looks as if the squares were averaged over the pixels. A squared distance is their sum.", lambda x, points, a, s, p: _with_weights(lambda away, chances: torch.softmax(chances.log() - away / x[0].numel(), 1))(x, points, a, s, p)),
            Slip("It looks as if the distance was not squared.", lambda x, points, a, s, p: _with_weights(lambda away, chances: torch.softmax(chances.log() - (away * 2 * s**2).sqrt() / (2 * s**2), 1))(x, points, a, s, p)),
            Slip("The exponents were multiplied by the chances. A chance multiplies the exponential: what is that in the exponent?", _with_weights(lambda away, chances: torch.softmax(-away * chances, 1))),
            Slip("The chances multiply the weights after the softmax, and then the weights no longer sum to 1.", _with_weights(lambda away, chances: torch.softmax(-away, 1) * chances)),
            Slip("The weights do not sum to 1: divide the exponentials by their sum.", _with_weights(lambda away, chances: (-away).exp() * chances)),
            Slip("That is a times the best guess. The weights average the clean pictures, not the pictures times a.", lambda x, points, a, s, p: a * _flipped(x, points, a, s, p)),
            Slip("That is the mirror image of the best guess.", lambda x, points, a, s, p: _mirror(_flipped(x, points, a, s, p))),
            Slip("That is the best guess if every picture is mirrored.", lambda x, points, a, s, p: _plain(x, _mirror(points), a, s, p)),
            Slip("That is the nearest picture or mirror image. A best guess is an average.", _nearest),
            Slip("The plain guess and its mirror image were mixed with 1 - p and p. But x tells which of the two is likely: put all the points into one softmax.", lambda x, points, a, s, p: (1 - p) * _plain(x, points, a, s, p) + p * _mirror(_plain(x, points, a, s, p))),
            Slip("The pictures are turned upside down as well. A flip exchanges left and right, the last axis.", _guess_flipped(lambda p: (1 - p, p), lambda points: points.flip(-1, -2))),
        ),
        _flip_inputs,
        explain=_explain_flips,
    ),
    Exercise(
        "compute.steps",
        "The fair-compute calculator",
        _steps,
        (
            Slip("A multiply-add is two operations, and you counted it as one.", _other_cost(_cost, 3)),
            Slip("That pays for the way there. The way back costs twice as much again.", _other_cost(_cost, 2)),
            Slip("Attention compares every position with every other: four times the positions are sixteen times the pairs.", _other_cost(lambda c, a, told, k: k**2 * (c + a) + told)),
            Slip("What sees the time and the label only does not know how large the picture is.", _other_cost(lambda c, a, told, k: k**2 * (c + told) + k**4 * a)),
            Slip("k times as wide and k times as high are k^2 times the pixels.", _other_cost(lambda c, a, told, k: k * c + k**2 * a + told)),
            Slip("That is the number of pictures. A step takes a whole batch of them.", lambda flop, c, a, told, k, batch: int(flop // (6 * _cost(c, a, told, k)))),
            Slip("That counts a multiply-add as one operation, and only the way there: 2 and 3 are missing.", _other_cost(_cost, 1)),
            Slip("The way back costs twice as much as the way there, so the two together are three times as much.", _other_cost(_cost, 4)),
            Slip("The pictures are larger by k along each side, and that is not in it.", _other_cost(lambda c, a, told, k: c + a + told)),
            Slip("Not everything grows with the pixels. Attention grows with pairs of them, and what sees the time and the label does not grow.", _other_cost(lambda c, a, told, k: k**2 * (c + a + told)), (_other_cost(lambda c, a, told, k: k**4 * (c + a + told)),)),
            Slip("What sees the time and the label is left out.", _other_cost(lambda c, a, told, k: k**2 * c + k**4 * a)),
            Slip("Attention is left out.", _other_cost(lambda c, a, told, k: k**2 * c + told)),
            Slip("Attention compares pairs of positions. k^2 times as many positions are k^4 times as many pairs.", _other_cost(lambda c, a, told, k: k**2 * c + k**3 * a + told)),
            Slip("Enlarging makes a picture more expensive. It looks as if its cost was divided by powers of k.", _other_cost(lambda c, a, told, k: c / k**2 + a / k**4 + told)),
            Slip("That is one step less than the compute pays for.", lambda flop, c, a, told, k, batch: int(flop // (6 * batch * _cost(c, a, told, k))) - 1),
            Slip("There is no half step: round down.", lambda flop, c, a, told, k, batch: flop / (6 * batch * _cost(c, a, told, k))),
            Slip("The last step is not paid for: round down, not up and not to the nearest.", lambda flop, c, a, told, k, batch: math.ceil(flop / (6 * batch * _cost(c, a, told, k)))),
        ),
        _compute_inputs,
        apart=lambda arguments: arguments[4],
        explain=_explain_compute,
    ),
)  # fmt: skip
