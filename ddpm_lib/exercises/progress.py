"""The reader's record: which exercises are solved, in a small file. Nothing here needs torch or NumPy.

What the chapters and the exercises are called is read from the source of `chapter_NN`, without importing it.
"""

from __future__ import annotations

import ast
import datetime
import json
import os
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from ..files import user_path, write_whole

SOURCES = {int(path.stem[-2:]): path for path in sorted(Path(__file__).parent.glob("chapter_[0-9][0-9].py"))}
CHAPTERS = tuple(SOURCES)
"""The chapters that have exercises."""


@cache
def catalogue() -> dict[int, tuple[str, tuple[tuple[str, str], ...]]]:
    """Chapter number -> (title, ((name, title) of each exercise)), in the order of the book."""
    found = {}
    for chapter, path in SOURCES.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assigned = {
            target.id: node.value
            for node in tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        group = tuple(
            tuple(argument.value for argument in call.args[:2]) for call in assigned["EXERCISES"].elts
        )
        found[chapter] = assigned["TITLE"].value, group
    return found


def progress_file() -> Path:
    """Where the reader's progress is kept: $DDPM_LIB_PROGRESS, else .ddpm_lib/progress.json in their home.

    Raises ValueError where neither is known.
    """
    chosen = os.environ.get("DDPM_LIB_PROGRESS")
    try:
        return user_path(chosen or "~/.ddpm_lib/progress.json")
    except ValueError as error:
        raise ValueError(
            f"{error}; the environment variable DDPM_LIB_PROGRESS may name the file of your progress"
        ) from error


def kept() -> dict[str, dict]:
    """Exercise -> {"correct": date of the first correct attempt or None, "tries": attempts up to it}.

    A file that cannot be understood is moved aside, never overwritten. Raises ValueError where there can be no file.
    """
    path = progress_file()
    try:
        return _read(path)
    except FileNotFoundError:
        return {}
    except ValueError:
        aside = path.with_name(f"{path.name}.unreadable")
        os.replace(path, aside)
        warnings.warn(f"{path} could not be read; it is now {aside}, and counting begins anew", stacklevel=2)
        return {}


def _read(path: Path) -> dict[str, dict]:
    try:
        # with or without the mark that some editors put at the beginning
        record = json.loads(path.read_text(encoding="utf-8-sig"))
        return {name: {"correct": row["correct"], "tries": int(row["tries"])} for name, row in record.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is no file of progress, as `check` keeps it in progress.json") from error


def keep(name: str, correct: bool) -> None:
    """Counts an attempt at an exercise, up to the first correct one. Raises OSError or ValueError if that fails."""
    record = kept()
    row = record.setdefault(name, {"correct": None, "tries": 0})
    if row["correct"]:
        return
    row["tries"] += 1
    if correct:
        row["correct"] = datetime.date.today().isoformat()
    text = json.dumps(record, indent=1, sort_keys=True)
    write_whole(progress_file(), lambda part: Path(part).write_text(text, encoding="utf-8"))


def forget() -> None:
    """Begins anew: removes the file of progress."""
    progress_file().unlink(missing_ok=True)


def report(everything: bool = False) -> str:
    """How far the reader is: a line for each chapter, what is next, and the exercises of the chapters under way.

    everything: the exercises of all chapters.
    """
    record, lines, done_in_book, in_book, following = kept(), [], 0, 0, ""
    for chapter, (title, group) in catalogue().items():
        rows = [record.get(name, {"correct": None, "tries": 0}) for name, _ in group]
        done = sum(bool(row["correct"]) for row in rows)
        done_in_book, in_book = done_in_book + done, in_book + len(group)
        bar = "#" * done + "." * (len(group) - done)
        lines.append(f"{chapter:>2}  {bar:<6}  {done} of {len(group)}  {title}")
        under_way = any(row["tries"] for row in rows) and done < len(group)
        if under_way or everything:
            lines += [_line(*each, row) for each, row in zip(group, rows, strict=True)]
        if not following and done < len(group):
            name, task = next(each for each, row in zip(group, rows, strict=True) if not row["correct"])
            following = f"Next: chapter {chapter}, {task} ({name})\n"
    total = f"{done_in_book} of {in_book} exercises correct. Kept in {progress_file()}"
    return "\n".join([*lines, "", following or "All of them. Well done.\n", total])


def _line(name: str, title: str, row: dict) -> str:
    tries = f"{row['tries']} {'try' if row['tries'] == 1 else 'tries'}"
    state = f"{row['correct']}, {tries}" if row["correct"] else tries if row["tries"] else ""
    mark = "x" if row["correct"] else " "
    return f"      [{mark}] {name:<24} {title:<44} {state}".rstrip()


def marks(files: Sequence[str | os.PathLike]) -> str:
    """A table for a teacher, from the files of progress that a class handed in: a line a file, a column a chapter.

    Separated by tabs: it reads in a terminal and pastes into a spreadsheet. Raises ValueError for a file that is none.
    """
    groups = {chapter: [name for name, _ in group] for chapter, (_, group) in catalogue().items()}
    lines = [["file", *(f"{chapter} (of {len(names)})" for chapter, names in groups.items()), "all"]]
    for file in map(Path, files):
        record = _read(file)
        done = [sum(bool(record.get(name, {}).get("correct")) for name in names) for names in groups.values()]
        lines.append([str(file), *map(str, done), str(sum(done))])
    return "\n".join("\t".join(line) for line in lines)
