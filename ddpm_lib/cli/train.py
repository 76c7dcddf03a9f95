"""``python -m ddpm_lib train``: the words of a run's settings, and the run."""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields
from functools import partial

from .. import settings
from ..settings import Settings
from . import words

EXAMPLES = """\
  python -m ddpm_lib train --data mnist --size 28 --steps 600 --out runs/first
  python -m ddpm_lib train --resume runs/first --steps 1200
  python -m ddpm_lib train --data photos/ --size 32 --flip --schedule cosine --predict v --steps 5000 --out runs/photos
  python -m ddpm_lib train --data photos/ --init cifar32 --flip --steps 1000 --out runs/tuned
  torchrun --nproc_per_node=2 -m ddpm_lib train --data cifar10 --steps 1000 --out runs/two"""

GROUPS = ("the run", "the images", "the diffusion", "the network", "the optimiser")
TAKES = {int: words.whole, float: words.number, tuple: words.wholes, str: str}


def add_words(parser: argparse.ArgumentParser) -> None:
    """An option for each setting, and where the run lies."""
    groups = {name: parser.add_argument_group(name) for name in GROUPS}
    run = groups["the run"]
    run.add_argument("--out", type=words.path, help="folder for checkpoint, log and sample grids")
    run.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="RUN",
        help="go on with the run in this folder (or in --out)",
    )
    run.add_argument(
        "--config",
        type=words.path,
        metavar="FILE",
        help="JSON file of settings, by these options' names with _ for -; options win over it",
    )
    kinds = settings.kinds(Settings)
    for each in fields(Settings):
        kind, about = kinds[each.name][0], each.metadata
        options = {"dest": each.name, "default": argparse.SUPPRESS, "help": _help(each)}
        if kind is bool:
            options["action"] = "store_false" if each.default else "store_true"
        else:
            metavar = about["metavar"] or (",".join(map(str, about["choices"])) and each.name.upper())
            options |= {"type": TAKES[kind], "metavar": metavar or each.name.upper()}
        groups[about["group"]].add_argument(settings.option(each.name), **options)


def _help(each) -> str:
    about, default = each.metadata, each.default
    text, _, left_open = about["about"].partition(" (default")
    if about["choices"] and isinstance(about["choices"][0], str):
        text = f"{text}: {', '.join(about['choices'])}"
    if left_open or default is None or isinstance(default, bool):
        return text + (f" (default{left_open}" if left_open else "")
    return f"{text} (default: {default:g})" if isinstance(default, float) else f"{text} (default: {default})"


def run(args: argparse.Namespace) -> int:
    """Starts a run or goes on with one; returns the exit code."""
    given = {each.name: getattr(args, each.name) for each in fields(Settings) if hasattr(args, each.name)}
    if args.config is not None:
        given = settings.read(args.config) | given
    tell = partial(print, file=sys.stderr)
    if args.resume is not None:
        folder = _resumed(args)
        from .. import run as runs

        return _ended(runs.resume(folder, tell=tell, **given))
    if args.out is None:
        raise ValueError("say where the run goes: --out runs/first")
    made = Settings(**given)
    from .. import run as runs

    return _ended(runs.start(made, args.out, tell=tell))


def _resumed(args: argparse.Namespace):
    named = words.path(args.resume) if args.resume else None
    if args.out and named and named != args.out:
        raise ValueError(f"--resume {args.resume} and --out {args.out} name two folders: give one")
    if not (named or args.out):
        raise ValueError("say which run to go on with: --resume runs/first")
    return named or args.out


def _ended(outcome) -> int:
    step, steps = outcome.model.step, outcome.model.config.steps
    if outcome.leads and outcome.finished:
        print(
            f"{steps} steps done: {outcome.folder / 'checkpoint.safetensors'}\n"
            f"  python -m ddpm_lib sample {outcome.folder} --out samples.png"
        )
    elif outcome.leads:
        print(
            f"stopped at step {step} of {steps}; saved. Go on with:\n"
            f"  python -m ddpm_lib train --resume {outcome.folder}"
        )
    return 128 + outcome.signal if outcome.signal else 0
