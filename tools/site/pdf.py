"""One PDF of the whole book, from the built pages: with numbered pages, a list of contents, working links and bookmarks.

    python tools/site/pdf.py [PAGE ...]        write _build/pdf/diffusion-models.pdf; some pages only: book/NAME

The pages are put one after the other into one document, which Chromium prints (it must be on this machine). It is printed twice: the
second time its list of contents knows on which page each chapter begins. Folded texts are open, code that is folded on the
page stays folded, interactive figures are their pictures.
"""

from __future__ import annotations

import argparse
import base64
import io
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin

import yaml
from bs4 import BeautifulSoup, Tag
from headless import chromium, served
from pypdf import PdfReader

ROOT = Path(__file__).resolve().parents[2]
HTML = ROOT / "_build" / "html"
TARGET = ROOT / "_build" / "pdf" / "diffusion-models.pdf"
COMBINED = "_whole_book.html"
CSS = Path(__file__).with_name("pdf.css")
# What is of use on a screen only.
NOT_PRINTED = (
    "a.headerlink, p.equation-check, script, style, button, .live-model, .in-dark, div.cell details.hide, details.hide-input, "
    "nav.ways-in, .prev-next-area, iframe"
)


def pages() -> list[str]:
    """The pages of the book in their order, as book/NAME."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    return [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]


def place(page: str, anchor: str = "") -> str:
    """The id, in the one document, of a page or of a place on it."""
    slug = page.removeprefix("book/")
    return f"{slug}--{anchor}" if anchor else slug


def article(html: str, page: str, known: Iterable[str]) -> Tag:
    """The text of a built page, with ids and links that hold in the one document. Raises ValueError if there is none."""
    soup = BeautifulSoup(html, "html.parser")
    text = soup.select_one("article.bd-article")
    if text is None:
        raise ValueError(f"{page}: no text in the built page: build the book first (make book)")
    for each in text.select(NOT_PRINTED):
        each.decompose()
    for each in text.select("[id]"):
        each["id"] = place(page, each["id"])
    for each in text.select("details"):
        each["open"] = ""
    for each in text.select("img"):
        each["src"] = urljoin(f"/{page}", each["src"])
        each.attrs.pop("loading", None)
        each.attrs.pop("srcset", None)
    for each in text.select("a[href]"):
        target, anchor = urldefrag(each["href"])
        if re.match(r"[a-z]+:", target):
            continue
        linked = unquote(urljoin(f"/{page}", target)).strip("/").removesuffix(".html") if target else page
        if linked in known:
            each["href"] = "#" + place(linked, unquote(anchor))
        else:
            del each["href"]
    text.name = "section"
    text["id"] = place(page)
    text["class"] = ["bd-article", "printed-page"]
    return text


def whole(articles: dict[str, Tag], head: str, numbers: dict[str, int]) -> str:
    """The one document: title, list of contents with page numbers, and the pages."""
    lines = []
    for page, text in articles.items():
        title = text.select_one("h1").get_text(" ", strip=True)
        number = numbers.get(page, 0)
        lines.append(
            f'<li><a href="#{place(page)}"><span>{title}</span><span class="leader"></span><span>{number or "000"}</span></a></li>'
        )
    body = "".join(map(str, articles.values()))
    return (
        f'<!doctype html><html lang="en" data-theme="light" data-mode="light"><head>{head}'
        f"<title>Diffusion models, from noise to a picture</title><style>{CSS.read_text(encoding='utf-8')}</style></head>"
        '<body class="whole-book"><section class="title-page"><h1>Diffusion models,<br>from noise to a picture</h1>'
        "<p>A book that teaches diffusion models by building one</p></section>"
        f'<nav class="contents"><h2>Contents</h2><ol>{"".join(lines)}</ol></nav>{body}</body></html>'
    )


def styles(html: str) -> str:
    """The style sheets of a built page, as they are named from the root of the site."""
    links = BeautifulSoup(html, "html.parser").select("head link[rel=stylesheet]")
    return "".join(f'<link rel="stylesheet" href="{urljoin("/book/", link["href"])}">' for link in links)


def page_numbers(pdf: bytes, known: Iterable[str]) -> dict[str, int]:
    """On which page of the PDF, counted from 1, each page of the book begins."""
    reader = PdfReader(io.BytesIO(pdf))
    found = {}
    for name, destination in reader.named_destinations.items():
        found[unquote(name).lstrip("/#")] = reader.get_destination_page_number(destination) + 1
    return {page: found[place(page)] for page in known if place(page) in found}


def printed(browser, address: str) -> bytes:
    page = browser.new_page()
    page.goto(address, wait_until="load", timeout=300_000)
    page.emulate_media(media="print")
    page.evaluate("() => Promise.all([...document.images].map((image) => image.decode().catch(() => 0)))")
    page.evaluate("() => document.fonts.ready.then(() => 0)")
    session = page.context.new_cdp_session(page)
    stream = session.send(
        "Page.printToPDF",
        {
            "preferCSSPageSize": True,
            "printBackground": True,
            "generateDocumentOutline": True,
            "generateTaggedPDF": True,
            "transferMode": "ReturnAsStream",
        },
    )["stream"]
    parts = []
    while True:
        part = session.send("IO.read", {"handle": stream})
        data = part["data"]
        parts.append(base64.b64decode(data) if part.get("base64Encoded") else data.encode("latin-1"))
        if part["eof"]:
            break
    session.send("IO.close", {"handle": stream})
    page.close()
    return b"".join(parts)


def make(names: list[str], target: Path = TARGET, html: Path = HTML) -> dict[str, int]:
    """Writes the PDF of these pages; on which page each begins. Raises ValueError for pages that are not built."""
    from ddpm_lib.files import write_whole

    articles, sources = {}, {}
    for name in names:
        path = html / f"{name}.html"
        if not path.is_file():
            raise ValueError(f"{name} is not built: run make book first; the pages are {', '.join(pages())}")
        sources[name] = path.read_text(encoding="utf-8")
    for name in names:
        articles[name] = article(sources[name], name, names)
    head = '<meta charset="utf-8">' + styles(sources[names[0]])
    combined = html / COMBINED
    numbers: dict[str, int] = {}
    try:
        with served(html) as address, chromium() as browser:
            for _ in range(2):
                combined.write_text(whole(articles, head, numbers), encoding="utf-8")
                before, pdf = numbers, printed(browser, f"{address}/{COMBINED}")
                numbers = page_numbers(pdf, names)
    finally:
        combined.unlink(missing_ok=True)
    if before != numbers:
        raise ValueError("the page numbers changed between the two printings")
    write_whole(target, lambda part: Path(part).write_bytes(pdf))
    return numbers


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("pages", nargs="*", metavar="PAGE", help="book/NAME; all of them without names")
    names = parser.parse_args().pages or pages()
    try:
        numbers = make(names)
    except (ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1
    for name, number in numbers.items():
        print(f"{number:5d}  {name}")
    size = TARGET.stat().st_size / 1e6
    print(f"{TARGET.relative_to(ROOT)}: {len(PdfReader(TARGET).pages)} pages, {size:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
