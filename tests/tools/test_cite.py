"""The entry that readers copy says the same as CITATION.cff, and its chapter is one of the book."""

import re
from pathlib import Path

import nbformat
import yaml

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "book/how_to_cite.md").read_text(encoding="utf-8")
BOOK, CHAPTER = (
    dict(re.findall(r"^  (\w+) += \{(.*?)\},?$", entry, re.MULTILINE))
    for entry in re.findall(r"```bibtex\n(.*?)```", PAGE, re.DOTALL)
)


def test_the_entry_says_what_the_citation_file_says():
    told = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    title, _, subtitle = told["title"].partition(": ")
    assert BOOK["title"] == title
    assert BOOK["subtitle"].replace("\\_", "_") == subtitle[0].upper() + subtitle[1:]
    assert BOOK["author"] == "{" + told["authors"][0]["name"] + "}"
    assert BOOK["version"] == told["version"]
    assert BOOK["url"] == told["url"]
    assert BOOK["note"].split() == ["Text:", "CC", "BY", "4.0.", "Code:", "MIT"]
    assert {"MIT", "CC-BY-4.0"} == set(told["license"])


def test_the_year_is_that_of_the_book():
    assert BOOK["year"] == yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["copyright"]


def test_the_chapter_exists_and_has_this_title():
    stem = CHAPTER["url"].rpartition("/")[2].removesuffix(".html")
    assert CHAPTER["url"].startswith(BOOK["url"])
    assert stem.startswith(f"{int(CHAPTER['chapter']):02}_")
    first = nbformat.read(ROOT / f"book/{stem}.ipynb", 4).cells[0].source
    assert first.startswith(f"# {CHAPTER['title']}\n")


def test_braces_close():
    for entry in re.findall(r"```bibtex\n(.*?)```", PAGE, re.DOTALL):
        assert entry.count("{") == entry.count("}")
