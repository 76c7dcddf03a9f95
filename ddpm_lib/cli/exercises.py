"""``python -m ddpm_lib exercises``: which of the book's exercises are solved."""

from __future__ import annotations

import argparse

from . import words

EXAMPLES = """\
  python -m ddpm_lib exercises
  python -m ddpm_lib exercises --marks handed_in/*.json"""


def add_words(parser: argparse.ArgumentParser) -> None:
    """Whose progress, and how much of it."""
    parser.add_argument("--all", action="store_true", help="the exercises of chapters not begun, too")
    parser.add_argument(
        "--marks",
        nargs="+",
        type=words.path,
        metavar="FILE",
        help="for teachers: a table of several readers' progress.json",
    )
    parser.add_argument(
        "--forget", action="store_true", help="begin anew: remove the record of your progress"
    )


def run(args: argparse.Namespace) -> None:
    """Prints the progress, or the table of several readers'."""
    from ..exercises import progress

    if args.marks and (args.all or args.forget):
        raise ValueError("--marks shows other readers' records: leave --all and --forget out")
    if args.forget:
        progress.forget()
    print(progress.marks(args.marks) if args.marks else progress.report(args.all))
