"""``python -m ddpm_lib sample``: pictures from a model, as one picture, as arrays, or as a film."""

from __future__ import annotations

import argparse
import sys
from functools import partial

from ..files import keep_apart, model_file
from ..settings import PRECISIONS
from . import words

EXAMPLES = """\
  python -m ddpm_lib sample mnist28 --label 7 --count 16 --scale 2 --out seven.png
  python -m ddpm_lib sample mnist28 --count 10 --film digits.gif                    the steps, one after the other
  python -m ddpm_lib sample runs/first --count 100 --steps 20 --sampler dpm++2m --out all.npz"""

PICTURES, FILMS = (".png", ".npz"), (".gif", ".webp")
LARGEST_ZOOM = 64


def add_words(parser: argparse.ArgumentParser) -> None:
    """What to draw with, what to draw, and where to."""
    parser.add_argument("checkpoint", metavar="MODEL", help=words.model_help())
    parser.add_argument(
        "--label", help="name or number of a class, or several with commas (default: all in turn)"
    )
    parser.add_argument(
        "--out",
        type=words.path,
        default="samples.png",
        help="x.png for a picture, x.npz for arrays images and labels (default: %(default)s)",
    )
    parser.add_argument(
        "--film", type=words.path, metavar="FILE", help="also the steps on the way, as x.gif or x.webp"
    )
    parser.add_argument(
        "--columns",
        type=words.count,
        help="pictures in a row of the picture or film (default: one of each class, or a square)",
    )
    parser.add_argument(
        "--zoom", type=words.count, help="size of a pixel in the picture or film (default: 2)"
    )
    parser.add_argument("--raw", action="store_true", help="the last weights instead of their average")
    parser.add_argument(
        "--precision",
        default="fp32",
        help=f"{', '.join(PRECISIONS)}: auto takes bf16 where the processor has it and is faster so (default: %(default)s)",
    )
    words.add_sampling(parser, images=16)


def run(args: argparse.Namespace) -> None:
    """Draws, writes, and says what was drawn."""
    _check_outputs(args)
    from .. import checkpoint, draw, prepare
    from ..device import pick_device

    device = pick_device(args.device)
    model = checkpoint.load(args.checkpoint, device)
    keep_apart("--out", args.out, [model.data.get("source")])
    keep_apart("--film", args.film, [model.data.get("source")])
    if args.raw and model.averaged_only:
        raise ValueError(f"--raw: {args.checkpoint} holds only the average of the weights: leave --raw out")
    how, _ = draw.recommended(model, words.asked_sampling(args))
    draw.check(args.count, args.batch_size, args.seed, how["sampler"], args.eta, args.precision)
    labels = draw.asked_labels(model, args.label, args.count)
    prepare.warn_of_slow_bf16(args.precision, device, partial(print, file=sys.stderr))
    film = None if args.film is None else draw.Film(model, how["steps"], args.count)
    images = draw.draw(
        model,
        args.count,
        labels,
        **how,
        seed=args.seed,
        eta=args.eta,
        ema=not args.raw,
        progress=sys.stderr.isatty(),
        batch_size=args.batch_size,
        precision=args.precision,
        watch=None if film is None else film.add,
    )
    known = model.net.config.num_classes
    columns = args.columns or (known if known and args.label is None and args.count >= known else None)
    if args.out.suffix == ".png":
        from ..plotting import save_grid

        save_grid(draw.zoomed(images, args.zoom or 2), args.out, columns=columns)
    else:
        draw.save_npz(args.out, images, labels, model.classes)
    if film is not None:
        film.save(args.film, columns, args.zoom or 2)
    shown = (
        "no labels"
        if labels is None
        else "labels " + ", ".join(model.classes[int(n)] for n in labels.unique())
    )
    print(f"{args.out}: {len(images)} images, {shown}; {words.said_sampling(how, args.eta)}")
    if film is not None:
        print(f"{args.film}: {len(film.frames)} frames of {how['steps']} steps")


def _check_outputs(args: argparse.Namespace) -> None:
    if args.out.suffix not in PICTURES:
        raise ValueError(
            f"--out {args.out}: choose a name ending in .png (a picture of all) or .npz (images and labels)"
        )
    if args.film is not None and args.film.suffix not in FILMS:
        raise ValueError(f"--film {args.film}: choose a name ending in {' or '.join(FILMS)}")
    if args.out.suffix == ".npz" and args.film is None:
        for name in ("columns", "zoom"):
            if getattr(args, name) is not None:
                raise ValueError(
                    f"--{name} is for a picture or a film, and {args.out} is neither: leave it out"
                )
    if args.zoom is not None and args.zoom > LARGEST_ZOOM:
        raise ValueError(f"--zoom {args.zoom}: choose 1 to {LARGEST_ZOOM}")
    for option in ("out", "film"):
        keep_apart(f"--{option}", getattr(args, option), [model_file(args.checkpoint)])
