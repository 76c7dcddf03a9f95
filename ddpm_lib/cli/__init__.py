"""The command line: ``python -m ddpm_lib train / sample / evaluate / export / data / exercises``.

Each command is a module of its own that reads the words, calls the library and prints. A module says what its words
are without torch, and imports what it works with when it runs, so that help and mistakes are answered at once.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import warnings

from .. import __version__
from .words import Parser

COMMANDS = {
    "train": "Train a model, or go on training one.",
    "sample": "Draw images from a checkpoint or a shipped model.",
    "evaluate": "Measure a model: how good, how varied and how new its samples are, beside real images.",
    "export": "Write the file to share: the average weights in half precision.",
    "data": "List the image sets, or fetch one.",
    "exercises": "Show which of the book's exercises you have solved.",
}
"""The commands, in the order in which help lists them; each is the module of its name in this folder."""

FIRST_STEPS = """First steps, none of which needs a network:
  python -m ddpm_lib sample mnist28 --label 7 --out seven.png     draw sevens with the shipped model
  python -m ddpm_lib train --data mnist --size 28 --steps 600 --out runs/first
  python -m ddpm_lib sample runs/first --out all.png"""


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0 done, 2 a request that cannot be met, 130 or 143 interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # a name that this terminal cannot show must not cost the work of the command
            stream.reconfigure(errors="replace")
    args = parser().parse_args(argv)
    warnings.showwarning = lambda message, *_: print(f"ddpm_lib: {message}", file=sys.stderr)
    try:
        code = args.run(args) or 0
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # whoever read our output has seen enough; and Python must not try to write the rest at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError, MemoryError) as error:
        print(f"ddpm_lib {args.command}: {_one_line(error)}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        if not _out_of_memory(error):
            raise
        print(f"ddpm_lib {args.command}: {_one_line(error)[:200]}: {LESS_MEMORY}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


LESS_MEMORY = "not enough memory; a smaller --batch-size, --size or --width needs less"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or LESS_MEMORY


def _out_of_memory(error: RuntimeError) -> bool:
    """torch has a class of its own for a GPU's memory, and none for the processor's."""
    return type(error).__name__ == "OutOfMemoryError" or any(
        words in str(error) for words in ("not enough memory", "can't allocate memory")
    )


def parser() -> Parser:
    """What can be said on the command line."""
    found = Parser(
        prog="python -m ddpm_lib",
        description="Train, sample and measure diffusion models.",
        epilog=FIRST_STEPS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.add_argument("--version", action=_Version, nargs=0, help="show the versions of this and of torch")
    commands = found.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    for name, summary in COMMANDS.items():
        module = importlib.import_module(f".{name}", __name__)
        sub = commands.add_parser(
            name,
            help=summary,
            description=summary,
            epilog="Examples:\n" + module.EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_words(sub)
        sub.set_defaults(run=module.run)
    return found


class _Version(argparse.Action):
    def __call__(self, parser, *_):
        from importlib.metadata import version

        print(f"ddpm_lib {__version__}, torch {version('torch')}")
        parser.exit()
