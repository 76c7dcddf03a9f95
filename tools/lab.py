"""Open the chapters in JupyterLab, as copies in a folder of the reader's own, which an update of the book never harms.

The copies are plain notebooks (tools/plain.py): JupyterLab shows them as the pages of the book look.

    python tools/lab.py               bring my_work/ up to date and open it
    python tools/lab.py --only-copy   bring it up to date, without opening

What the reader wrote stays where it is. A chapter that they changed, and that the book has changed since, comes
beside theirs, as NAME.new.ipynb. A copy that was run but not changed makes room for the new version and goes to
older/, with its outputs. A file that the reader deleted comes back fresh: that is how to begin a chapter anew.
Other words go to JupyterLab as they are.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import plain

ROOT = Path(__file__).resolve().parents[1]
BOOK, MINE = ROOT / "book", ROOT / "my_work"
# The pages and pictures that chapters link to come along.
COPIED = ("*.ipynb", "*.md", "images/*")
OLDER, MEMORY, KERNELS = "older", ".book/copies.json", ".book"


@dataclass(frozen=True)
class Change:
    """What was done to one file of the reader's folder: "new", "updated" or "beside"."""

    what: str
    file: str
    source: str


def text_of(content: bytes) -> str:
    """A fingerprint of what a person can change in a file: of a notebook, its cells without their outputs."""
    try:
        cells = json.loads(content)["cells"]
        kept = [(each["cell_type"], "".join(each["source"]), each.get("attachments")) for each in cells]
        content = json.dumps(kept, sort_keys=True).encode()
    except (ValueError, KeyError, TypeError):
        pass  # no notebook, or not a whole one: every byte counts
    return hashlib.sha256(content).hexdigest()


def update(
    book: Path = BOOK, mine: Path = MINE, copy: Callable[[Path], bytes] = Path.read_bytes
) -> list[Change]:
    """Brings the reader's folder up to date with the book. Nothing that the reader made is changed or removed.

    copy: what becomes of a file of the book in the reader's folder.
    What each file was made from is remembered in .book/; where that is lost, a file counts as changed.
    """
    made_of = _remembered(mine)
    changes = []
    for source in sorted(path for pattern in COPIED for path in book.glob(pattern)):
        if source.suffix == ".md" and source.stem in plain.SITE_ONLY:
            continue
        change = _update_one(source, copy(source), source.relative_to(book), mine, made_of)
        if change:
            changes.append(change)
            _place(json.dumps(made_of, indent=1).encode(), mine / MEMORY)
    return changes


def _update_one(
    source: Path, content: bytes, name: Path, mine: Path, made_of: dict[str, list[str]]
) -> Change | None:
    now, whole = text_of(content), hashlib.sha256(content).hexdigest()
    origin = text_of(source.read_bytes())
    slots = list(_slots(name, mine))
    before = {slot: made_of.get(str(slot), ["", "", ""]) for slot in slots}
    texts = {slot: text_of((mine / slot).read_bytes()) for slot in slots if (mine / slot).exists()}
    has_it = any(now in (text, before[slot][0]) for slot, text in texts.items())
    # in a copy that the reader changed, numbers that moved elsewhere in the book are no new version
    same = any(text != before[slot][0] and before[slot][2] == origin for slot, text in texts.items())
    # deleting the new version and keeping one's own is an answer too
    declined = name in texts and any(
        now == before[slot][0] or origin == before[slot][2] for slot in slots[1:] if slot not in texts
    )
    if has_it or same or declined:
        return None
    slot = next(slot for slot in slots if slot not in texts or texts[slot] == before[slot][0])
    if slot in texts:
        _retire(mine / slot, mine, worthless=before[slot][1])
    _place(content, mine / slot)
    made_of[str(slot)] = [now, whole, origin]
    what = "updated" if slot in texts else "beside" if texts else "new"
    return Change(what, str(slot), str(name))


def _slots(name: Path, mine: Path) -> Iterator[Path]:
    """The file's own place and those beside it, up to the first that is free."""
    for number in itertools.count():
        mark = "" if not number else ".new" if number == 1 else f".new-{number}"
        slot = name.with_name(f"{name.stem}{mark}{name.suffix}")
        yield slot
        if number and not (mine / slot).exists():
            return


def _remembered(mine: Path) -> dict[str, list[str]]:
    """File -> the fingerprints, of its text and of all of it, of what was put there, and of the text it was made of."""
    try:
        kept = json.loads((mine / MEMORY).read_text(encoding="utf-8"))
        # earlier versions of the book kept the first two
        return {
            file: [str(text), str(whole), *map(str, origin or [""])]
            for file, (text, whole, *origin) in kept.items()
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _retire(path: Path, mine: Path, worthless: str) -> None:
    """Moves a file to a name in older/ that nothing has, and only there looks whether it may go."""
    (mine / OLDER).mkdir(exist_ok=True)
    names = (mine / OLDER / f"{path.stem}.{number}{path.suffix}" for number in itertools.count(1))
    moved = next(each for each in names if not each.exists())
    os.rename(path, moved)
    if hashlib.sha256(moved.read_bytes()).hexdigest() == worthless:
        moved.unlink()


def _place(content: bytes, path: Path) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            os.fsync(handle)
        os.chmod(part, 0o644)
        os.replace(part, path)
    finally:
        Path(part).unlink(missing_ok=True)


def report(changes: list[Change], mine: Path = MINE) -> str:
    """What a reader should know about an update."""
    chapters = [each for each in changes if each.file.endswith(".ipynb")]
    new = [each for each in chapters if each.what == "new"]
    updated = [each.file for each in chapters if each.what == "updated"]
    lines = []
    if new:
        lines.append(
            f"{mine.name}/ has your own copies of {len(new)} chapters. What you write there, the book never touches."
        )
    if updated:
        lines.append(
            f"New versions of {', '.join(updated)}. Yours were unchanged; those that you had run are in {mine.name}/{OLDER}/."
        )
    for each in chapters:
        if each.what == "beside":
            lines.append(
                f"{each.source}: you changed it, and the book has a new version. Yours stays as it is; the new one is "
                f"beside it, {each.file}. Go on in either, and delete the other when you like."
            )
    return "\n".join(lines)


def as_plain() -> Callable[[Path], bytes]:
    """The copies that this makes: pages of the book in plain form, other files as they are."""
    made = plain.Plain("lab")
    pages = {page.path: page for page in made.book.pages.values()}
    return lambda path: made.bytes_of(pages[path]) if path in pages else path.read_bytes()


def kernels(folder: Path) -> Path:
    """A description of this Python's kernel, which says from its start which cell makes a missing name."""
    argv = [
        sys.executable,
        "-m",
        "ipykernel_launcher",
        "--IPKernelApp.extensions=ddpm_lib.order",
        "-f",
        "{connection_file}",
    ]
    spec = {
        "argv": argv,
        "display_name": "Python 3 (ipykernel)",
        "language": "python",
        "metadata": {"debugger": True},
    }
    _place(json.dumps(spec).encode(), folder / "kernels" / "python3" / "kernel.json")
    return folder


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, usage=argparse.SUPPRESS
    )
    parser.add_argument("--only-copy", action="store_true")
    parser.add_argument("--folder", type=Path, default=MINE, help="where the copies are, by default my_work")
    arguments, others = parser.parse_known_args(argv)
    mine = arguments.folder.resolve()
    try:
        print(report(update(BOOK, mine, as_plain()), mine), flush=True)
    except plain.PlainError as error:
        print(f"A page of the book is not as it should be. {error}", file=sys.stderr)
        return 1
    if arguments.only_copy:
        return 0
    paths = [str(kernels(mine / KERNELS)), *filter(None, [os.environ.get("JUPYTER_PATH")])]
    env = os.environ | {"JUPYTER_PATH": os.pathsep.join(paths)}
    lab = [sys.executable, "-m", "jupyterlab", f"--notebook-dir={mine}", *others]
    return subprocess.run(lab, env=env).returncode


if __name__ == "__main__":
    sys.exit(main())
