"""The built book: what a browser gets. `make site` builds it and then runs these tests."""

import re
import struct
from html import unescape
from pathlib import Path

import address as address_tool
import pytest
import site_check
from fontTools.ttLib import TTFont
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
HTML = ROOT / "_build" / "html"
CHAPTERS = sorted(path.stem for path in (ROOT / "book").glob("*.ipynb"))

pytestmark = [
    pytest.mark.site,
    pytest.mark.skipif(
        not (HTML / "book" / "index.html").exists(), reason="the book is not built: make site"
    ),
]


def pages() -> list[site_check.Page]:
    return [page for page in site_check.pages(HTML) if page.path.parent == HTML / "book"]


def book_page(name: str) -> site_check.Page:
    return site_check.page(HTML / "book" / f"{name}.html")


def file_of(link: str, source: site_check.Page) -> Path:
    return site_check.file_of(link, source, HTML)


def attributes(source: site_check.Page, name: str) -> list[dict]:
    """Those of each tag of this name."""
    return [tag.attributes for tag in source.tags if tag.name == name]


def test_every_chapter_has_a_page():
    assert CHAPTERS, "no chapters in book/"
    assert set(CHAPTERS) <= {page.path.stem for page in pages()}


CHECKS = (
    site_check.broken_links,
    site_check.foreign_requests,
    site_check.pictures_without_text,
    site_check.wrong_addresses,
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_site_has_no_fault(check):
    assert check(HTML) == []


def test_chapters_open_in_colab_from_the_branch_with_their_address_in_them():
    slug = address_tool.current(ROOT).slug
    for name in CHAPTERS:
        expected = f"https://colab.research.google.com/github/{slug}/blob/colab/book/{name}.ipynb"
        assert expected in book_page(name).links()


def meta(source: site_check.Page) -> dict[str, str]:
    tags = [each for each in attributes(source, "meta") if each.get("content")]
    return {attrs.get("property", attrs.get("name")): attrs["content"] for attrs in tags}


def test_every_page_says_what_it_is_about():
    told = {source.path.stem: meta(source) for source in pages()}
    for name, tags in told.items():
        assert 50 < len(tags["description"]) <= 242, name
        assert tags["description"] == tags["og:description"] == tags["twitter:description"], name
        assert "\\" not in tags["description"] and "$" not in tags["description"], name
        assert tags["og:title"] == tags["twitter:title"] != "", name
    assert told["03_the_perfect_denoiser"]["og:title"] == "The perfect denoiser"
    chapters = [told[name]["description"] for name in CHAPTERS]
    assert len(set(chapters)) == len(chapters)


def test_whole_addresses_are_those_of_the_repository_or_absent():
    address = address_tool.current(ROOT)
    for source in pages():
        expected = [] if address.is_placeholder else [f"{address.pages}book/{source.path.name}"]
        canonical = [each["href"] for each in attributes(source, "link") if each.get("rel") == "canonical"]
        assert canonical == expected, source.path.name
        tags = meta(source)
        assert [tags[name] for name in ("og:url",) if name in tags] == expected
        assert ("og:image" in tags) == ("twitter:image" in tags) == bool(expected)
        edits = [link for link in source.links() if "/edit/" in link or "/issues/new" in link]
        assert bool(edits) == bool(expected), source.path.name
    assert (HTML / "sitemap.xml").exists() != address.is_placeholder


def test_the_picture_of_a_shared_link_is_as_large_as_it_says():
    content = (HTML / "_static" / "social.png").read_bytes()
    assert struct.unpack(">II", content[16:24]) == (1200, 630)


def test_pictures_come_when_they_are_seen_and_nothing_moves_then():
    for source in pages():
        for attrs in attributes(source, "img"):
            if re.search(r"_(images|figures)/.*\.png", attrs.get("src", "")):
                assert attrs.get("loading") == "lazy", (source.path.name, attrs["src"])
                shape = struct.unpack(">II", file_of(attrs["src"], source).read_bytes()[16:24])
                assert (int(attrs["width"]), int(attrs["height"])) == shape, (source.path.name, attrs["src"])


def test_figures_are_files_beside_their_page():
    count = 0
    for source in pages():
        for attrs in (tag.attributes for tag in source.tags):
            if "data-ddpm-figure" in attrs:
                script = file_of(attrs["data-script"], source).read_text(encoding="utf-8")
                assert f'const key = "{attrs["data-ddpm-figure"]}"' in script
                count += 1
        assert "const key = " not in source.path.read_text(encoding="utf-8")
    assert count >= len(CHAPTERS) - 3


def test_formulas_need_no_script_and_their_letters_are_in_the_font():
    known = set(TTFont(HTML / "_static" / "book-math.woff2").getBestCmap()) | {0xFE00, 0x20, 0x0A}
    count, missing = 0, {}
    for source in pages():
        text = source.path.read_text(encoding="utf-8")
        assert "MathJax" not in text and "mathjax/" not in text, source.path.name
        for formula in re.findall(r"<math.*?</math>", text, re.S):
            count += 1
            for letter in unescape(re.sub(r"<[^>]+>", "", formula)):
                if ord(letter) not in known:
                    missing.setdefault(letter, source.path.name)
    assert count > 1000 and missing == {}


def test_every_icon_of_a_page_is_in_the_cut_font():
    solid, brands = (
        set(TTFont(HTML / "_static" / f"{name}.woff").getBestCmap())
        for name in ("fa-solid-900", "fa-brands-400")
    )
    css = (HTML / "_static" / "styles" / "pydata-sphinx-theme.css").read_text(encoding="utf-8")
    for source in site_check.pages(HTML):
        for attrs in (tag.attributes for tag in source.tags):
            kinds = set((attrs.get("class") or "").split())
            names = {kind for kind in kinds if kind.startswith("fa-")} - {"fa-solid", "fa-brands", "fa-lg"}
            for name in names if kinds & {"fa-solid", "fas", "fab", "fa-brands"} else ():
                code = int(re.search(rf"\.{name}:before[^{{]*\{{content:\"\\([0-9a-f]+)", css)[1], 16)
                assert code in (brands if "fab" in kinds else solid), (source.path.name, name)


def test_how_to_cite_and_the_licence_are_on_a_page():
    cite = (HTML / "book" / "how_to_cite.html").read_text(encoding="utf-8")
    assert re.search(r"@book.*title.*author.*year", re.sub(r"<[^>]+>", "", cite), re.S)
    assert "creativecommons.org/licenses/by/4.0" in cite


def test_the_landing_page_leads_to_every_page():
    index = book_page("index")
    article = index.path.read_text(encoding="utf-8").split("<article", 1)[1].split("</article>")[0]
    names = set(re.findall(r'href="([\w]+)\.html', article))
    assert {source.path.stem for source in pages()} - {"index"} <= names


def test_the_film_has_the_frames_that_its_page_counts():
    index = book_page("index")
    film = next(tag.attributes for tag in index.tags if "data-film" in tag.attributes)
    still = Image.open(HTML / "_static" / "film-last.png").size
    assert Image.open(file_of(film["data-film"], index)).size == (
        still[0],
        still[1] * int(film["data-frames"]),
    )
