"""``python -m ddpm_lib data``: which image sets there are, and fetching one."""

from __future__ import annotations

import argparse

from . import words

EXAMPLES = """\
  python -m ddpm_lib data list
  python -m ddpm_lib data get mnist-full"""


def add_words(parser: argparse.ArgumentParser) -> None:
    """What to do, and with which set."""
    parser.add_argument("action", choices=("list", "get"), help="list the sets, or get one")
    parser.add_argument("name", nargs="?", help="for get: mnist-full or cifar10-full")
    parser.add_argument("--data-root", type=words.path, help="folder of the full sets")


def run(args: argparse.Namespace) -> None:
    """Prints the sets, or where the one that was fetched lies."""
    from .. import sources

    if args.action == "get":
        if not args.name:
            raise ValueError("say which set to fetch: data get mnist-full")
        print(f"{args.name}: {sources.get(args.name, args.data_root)}")
        return
    if args.name:
        raise ValueError(
            f"data list shows all sets: leave {args.name} out, or fetch it with data get {args.name}"
        )
    rows = sources.describe(args.data_root)
    columns = list(rows[0])
    widths = [max(len(column), *(len(row[column]) for row in rows)) for column in columns]
    for row in [dict(zip(columns, columns, strict=True)), *rows]:
        cells = [row[column].ljust(width) for column, width in zip(columns, widths, strict=True)]
        print("  ".join(cells).rstrip())
    print("An .npz file (images, labels) or a folder of pictures works wherever a name does.")
