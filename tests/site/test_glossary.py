"""The glossary has its words in order, and chapters lead to it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book/_ext"))

import glossary_links  # noqa: E402

PAGE = (ROOT / "book/glossary.md").read_text(encoding="utf-8")
LIST = re.search(r"```\{glossary\}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[1]
TERMS = re.findall(r"^(\S.*)$", LIST, re.MULTILINE)
HTML = ROOT / "_build/html/book"


def test_terms_are_in_order_and_each_has_a_meaning():
    assert sorted(map(str.lower, TERMS)) == list(map(str.lower, TERMS))
    assert len(set(TERMS)) == len(TERMS)
    for term, meaning in re.findall(r"^(\S.*)\n  (\S.*)$", LIST, re.MULTILINE):
        assert meaning.endswith((".", ")")), term
    assert len(re.findall(r"^  \S", LIST, re.MULTILINE)) == len(TERMS)


def test_words_that_are_not_linked_are_words_of_the_glossary():
    assert set(glossary_links.NOT_LINKED) <= set(TERMS)


def test_see_leads_to_another_term():
    for name in re.findall(r"[Ss]ee \*([^*]+)\*", LIST):
        assert name in TERMS


@pytest.mark.parametrize(
    "text, found",
    [
        ("a U-Net here", "U-Net"),
        ("Skip connections carry", "Skip connections"),
        ("skip\nconnection", "skip\nconnection"),
        ("the EMA of", "EMA"),
        ("cinema, ema", None),
        ("half-life", "half-life"),
        ("ablations", "ablations"),
        ("reablation", None),
    ],
)
def test_a_term_is_found_as_a_whole_word_in_its_forms(text, found):
    match = glossary_links.pattern(["U-Net", "skip connection", "EMA", "half-life", "ablation"]).search(text)
    assert (match and match[0]) == found


@pytest.mark.site
def test_each_chapter_links_each_word_once_and_to_its_place():
    places = set(re.findall(r'<dt id="(term-[^"]+)"', (HTML / "glossary.html").read_text(encoding="utf-8")))
    assert len(places) == len(TERMS)
    for path in HTML.glob("[0-9][0-9]_*.html"):
        links = re.findall(
            r'class="[^"]*glossary-link[^"]*"[^>]*href="glossary\.html#([^"]+)"',
            path.read_text(encoding="utf-8"),
        )
        assert len(links) == len(set(links)) > 5, path.name
        assert set(links) <= places
