"""The words that several commands share, and how a word becomes a value. Needs no torch."""

from __future__ import annotations

import argparse
import difflib
import re
from pathlib import Path

from ..files import shipped, user_path
from ..settings import SAMPLERS


class Parser(argparse.ArgumentParser):
    """Answers a mistake in one line, with the nearest word that it knows."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options, allow_abbrev=False)

    def error(self, message: str):
        if unknown := re.search(r"invalid choice: '?([\w-]+)'? \(choose from ([^)]*)\)", message):
            known = re.findall(r"[\w-]+", unknown[2])
            message = f"unknown {_kind(message)} {unknown[1]!r}{_meant(unknown[1], known)}: choose from {', '.join(known)}"
        elif unknown := re.search(r"unrecognized arguments: (\S+)", message):
            known = [word for action in self._actions for word in action.option_strings]
            message = f"unknown option {unknown[1]}{_meant(unknown[1], known)}"
        self.exit(2, f"{self.prog.removeprefix('python -m ')}: {message}; see {self.prog} --help\n")

    def parse_known_args(self, args=None, namespace=None):
        found, rest = super().parse_known_args(args, namespace)
        # here and not in the outermost parser, which knows nothing of this command's options
        if rest and not any(isinstance(action, argparse._SubParsersAction) for action in self._actions):
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return found, rest


def _kind(message: str) -> str:
    return "command" if "COMMAND" in message else message.split(":")[0].removeprefix("argument ")


def _meant(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f" (did you mean {near[0]}?)" if near else ""


def whole(text: str) -> int:
    """A whole number."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def count(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def number(text: str) -> float:
    """A number; NaN and infinity are left to the library, which says what they would do."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def wholes(text: str) -> tuple[int, ...]:
    """Whole numbers with commas between them; none at all is a list too."""
    try:
        return tuple(int(word) for word in text.split(",") if word.strip())
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of whole numbers with commas, such as 1,2"
        ) from None


def path(text: str) -> Path:
    """A path; ~ is the user's home, also after an equals sign, where the shell leaves it."""
    if not text.strip():  # what an unset variable of the shell gives
        raise argparse.ArgumentTypeError("the name is empty")
    try:
        return user_path(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def model_help() -> str:
    """What may stand where a command takes a model."""
    return f"a run's folder, a file, or a shipped model: {', '.join(shipped()) or 'none yet'}"


def add_sampling(parser: argparse.ArgumentParser, images: int) -> None:
    """Options of sample and evaluate; None leaves the choice to the model file."""
    default = "default: as the model file recommends, else"
    parser.add_argument("--count", type=whole, default=images, help="how many images (default: %(default)s)")
    parser.add_argument("--steps", type=whole, help=f"sampling steps ({default} 20)")
    parser.add_argument("--sampler", help=f"{', '.join(SAMPLERS)} ({default} dpm++2m)")
    parser.add_argument(
        "--scale",
        type=number,
        help=f"guidance: 0 ignores the label, 1 is plain, 2 to 4 steer harder ({default} 1)",
    )
    parser.add_argument(
        "--interval",
        type=number,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="guide only between these times, of 0 (clean) to 1 (noise) (default: always)",
    )
    parser.add_argument("--eta", type=number, help="noise of ddim, 0 to 1 (default: 0)")
    parser.add_argument("--seed", type=whole, default=0, help="of the noise (default: %(default)s)")
    parser.add_argument(
        "--batch-size", type=whole, default=64, help="images at a time (default: %(default)s)"
    )
    parser.add_argument(
        "--device", default="auto", help="cpu, cuda, cuda:1, mps or auto (default: %(default)s)"
    )


def asked_sampling(args: argparse.Namespace) -> dict:
    """Of sampler, steps, scale and interval, those that the reader asked for; eta is a wish for ddim."""
    asked = {name: getattr(args, name) for name in ("sampler", "steps", "scale", "interval")}
    if args.eta is not None and args.sampler is None:
        asked["sampler"] = "ddim"
    return {name: value for name, value in asked.items() if value is not None}


def said_sampling(how: dict, eta: float | None = None) -> str:
    """How samples were drawn, in words."""
    guided = (
        f" between times {how['interval'][0]:g} and {how['interval'][1]:g}" if how.get("interval") else ""
    )
    noise = "" if eta is None else f", eta {eta:g}"
    return f"{how['sampler']}, {how['steps']} steps, scale {how['scale']:g}{guided}{noise}"
