"""The list of references: how the text cites an entry, where it can be read, and its line in the list."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pybtex.backends.markdown import Backend
from pybtex.database import Entry, parse_file
from pybtex.style.formatting.plain import Style as PlainStyle
from pybtex.style.labels import BaseLabelStyle


@dataclass(frozen=True)
class Citation:
    """An entry. text: its line in the list, in Markdown; url: "" if it has none."""

    who: str
    year: str
    url: str
    text: str


def who(entry: Entry) -> str:
    """Ho; Ho and Salimans; Ho et al."""
    names = [
        " ".join(map(str, person.rich_prelast_names + person.rich_last_names))
        for person in entry.persons["author"]
    ]
    return " and ".join(names) if len(names) < 3 else f"{names[0]} et al."


def url(entry: Entry) -> str:
    fields = entry.fields
    if fields.get("archivePrefix", "").lower() == "arxiv":
        return f"https://arxiv.org/abs/{fields['eprint']}"
    return f"https://doi.org/{fields['doi']}" if "doi" in fields else fields.get("url", "")


class AuthorYear(BaseLabelStyle):
    """Labels of the list of references as the text cites them: Ho et al., 2020."""

    def format_labels(self, sorted_entries):
        for entry in sorted_entries:
            yield f"{who(entry)}, {entry.fields['year']}"


class BookStyle(PlainStyle):
    default_label_style = AuthorYear


def read(path: Path) -> dict[str, Citation]:
    """Key -> the entry, in the order of the list."""
    entries = BookStyle().sort(parse_file(str(path)).entries.values())
    lines = BookStyle().format_entries(entries)
    texts = (" ".join(line.text.render(Backend()).split()) for line in lines)
    return {
        entry.key: Citation(who(entry), entry.fields["year"], url(entry), text)
        for entry, text in zip(entries, texts, strict=True)
    }
