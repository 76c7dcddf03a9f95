"""``python -m ddpm_lib evaluate``: a model measured beside real pictures that it was not trained on."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ..files import keep_apart, model_file, write_whole
from . import words

EXAMPLES = """\
  python -m ddpm_lib evaluate mnist28 --scale 1.5
  python -m ddpm_lib evaluate runs/first --count 500 --bits 50 --json first.json
  python -m ddpm_lib evaluate mnist28 --ledger                      add a row to the book's results ledger"""


def add_words(parser: argparse.ArgumentParser) -> None:
    """What to measure, beside what, by what, and where the numbers go."""
    parser.add_argument("checkpoint", metavar="MODEL", help=words.model_help())
    parser.add_argument(
        "--data",
        help="real images to compare with (default: what the model was trained on; the embedded subset for a full set)",
    )
    parser.add_argument("--data-root", type=words.path, help="folder of the full sets")
    parser.add_argument(
        "--skip-corrupt", action="store_true", help="leave out pictures of --data that cannot be read"
    )
    parser.add_argument(
        "--features",
        default="classifier",
        help="what looks at the images: classifier (in the package) or inception (for FID and KID; needs "
        "pip install 'ddpm-lib[inception]', a download and --count above 2048); default: %(default)s",
    )
    parser.add_argument(
        "--bits",
        type=words.whole,
        default=0,
        metavar="N",
        help="also bound the bits per dimension of N test images, about half a second each (default: 0, none)",
    )
    parser.add_argument("--json", type=words.path, metavar="FILE", help="also write the numbers to this file")
    parser.add_argument(
        "--ledger",
        nargs="?",
        const="",
        metavar="PATH",
        help="also add a row to this results ledger (no PATH: book/ledger.json, in the repository)",
    )
    words.add_sampling(parser, images=1000)


def run(args: argparse.Namespace) -> None:
    """Measures, writes what was asked for, and prints the table."""
    if args.json is not None and not args.json.is_dir() and args.json.suffix != ".json":
        raise ValueError(f"--json {args.json}: give a name ending in .json")
    keep_apart("--json", args.json, [model_file(args.checkpoint), args.data, args.ledger or None])
    keep_apart("--ledger", args.ledger or None, [model_file(args.checkpoint), args.data])
    from .. import checkpoint, evaluate, ledger
    from ..device import pick_device

    book = None if args.ledger is None else ledger.where(args.ledger)
    if book is not None:
        ledger.read(book)  # a ledger that cannot be read is better known now than after minutes of work
    device = pick_device(args.device)
    model = checkpoint.load(args.checkpoint, device)
    found = evaluate.evaluate(
        model,
        args.data,
        data_root=args.data_root,
        skip_corrupt=args.skip_corrupt,
        features=args.features,
        count=args.count,
        bits=args.bits,
        seed=args.seed,
        eta=args.eta,
        batch_size=args.batch_size,
        progress=sys.stderr.isatty(),
        **words.asked_sampling(args),
    )
    mark = checkpoint.file_mark(model_file(args.checkpoint))
    result = {"checkpoint": str(args.checkpoint), "file": mark, **found.result()}
    if args.json:
        text = json.dumps(result, indent=2, ensure_ascii=False) + "\n"
        write_whole(args.json, lambda part: Path(part).write_text(text, encoding="utf-8"))
    added = ""
    if book is not None:
        row = ledger.make_row(str(args.checkpoint), model, result, device)
        added = (
            f"{book}: {'replaced its row of' if ledger.record(book, row) else 'a new row for'} {row['model']}"
        )
    how = words.said_sampling(found.asked, args.eta)
    theirs = f" ({', '.join(found.recommended)}: as the model file recommends)" if found.recommended else ""
    print(
        f"{args.checkpoint}: {args.count} samples, {how}, seed {args.seed}{theirs}\n{evaluate.table(found.rows)}\n"
        f"{found.about()}"
    )
    if stored := evaluate.stored_rows(model, found.asked):
        print(f"beside the numbers in the model file:\n{evaluate.comparison(found.rows, stored)}")
    if added:
        print(added)
