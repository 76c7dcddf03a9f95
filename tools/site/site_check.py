"""What can be told of the built pages without a browser: links, texts of pictures, the repository's address.

Each check takes the folder of the built site and gives the faults that it found. tools/site/publish_check.py
runs them with the others, and tests/site/test_site.py on its own.
"""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import address as address_tool

ROOT = Path(__file__).resolve().parents[2]

# Elements whose addresses a browser fetches without being asked.
FETCHED = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
    "link": "href",
}
NOT_FETCHED_LINKS = {"canonical", "next", "prev", "search", "index", "author", "alternate"}
PICTURE_FILES = (".png", ".svg", ".jpg", ".jpeg", ".gif", ".webp")


@dataclass(frozen=True)
class Fault:
    """place: page or file, with its line or cell. rule: what the fault is called, the same for all of its kind."""

    place: str
    rule: str
    says: str


@dataclass(frozen=True)
class Tag:
    name: str
    attributes: dict[str, str | None]
    line: int


class Page(HTMLParser):
    """A built page: its tags and its ids."""

    def __init__(self, path: Path):
        super().__init__()
        self.path, self.tags, self.ids = path, [], set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append(Tag(tag, attributes, self.getpos()[0]))
        self.ids |= {attributes.get("id"), attributes.get("name")} - {None}

    def fetched(self) -> list[Tag]:
        """The tags whose address a browser fetches without being asked."""
        return [
            tag
            for tag in self.tags
            if tag.attributes.get(FETCHED.get(tag.name))
            and not (
                tag.name == "link" and NOT_FETCHED_LINKS & set((tag.attributes.get("rel") or "").split())
            )
        ]

    def anchors(self) -> list[Tag]:
        return [tag for tag in self.tags if tag.name == "a" and tag.attributes.get("href")]

    def links(self) -> list[str]:
        return [tag.attributes["href"] for tag in self.anchors()]


def target_of(tag: Tag) -> str:
    return tag.attributes["href" if tag.name == "a" else FETCHED[tag.name]]


@functools.cache
def page(path: Path) -> Page:
    return Page(path)


def pages(site: Path) -> list[Page]:
    """Every page of the site, those that the theme adds (search, index) included."""
    paths = sorted(path for path in site.rglob("*.html") if "_static" not in path.relative_to(site).parts)
    if not paths:
        raise ValueError(f"no page in {site}: build the book first (make book)")
    return [page(path) for path in paths]


def shown(site: Path) -> list[Page]:
    """The pages at which a reader looks: not those that send the browser on to another at once."""
    return [
        each
        for each in pages(site)
        if not any(
            tag.name == "meta" and (tag.attributes.get("http-equiv") or "").lower() == "refresh"
            for tag in each.tags
        )
    ]


def is_local(address: str) -> bool:
    parts = urlsplit(address)
    return not parts.scheme and not parts.netloc


def source_of(path: Path, site: Path) -> Path | None:
    """The chapter or text that a page was made from; None for the theme's own pages."""
    made = ROOT / path.relative_to(site).with_suffix("")
    return next(
        (file for file in (made.with_suffix(".ipynb"), made.with_suffix(".md")) if file.exists()), None
    )


def place_of(page: Page, site: Path, line: int, text: str) -> str:
    """Where to look: the cell or line of the source that has this text, else the line of the built page."""
    source = source_of(page.path, site)
    built = f"{page.path.relative_to(site)}:{line}"
    if source is None or not text:
        return built
    name = source.relative_to(ROOT)
    if source.suffix == ".ipynb":
        for number, cell in enumerate(json.loads(source.read_text(encoding="utf-8"))["cells"], start=1):
            if text in "".join(cell["source"]) or text in json.dumps(cell["metadata"], ensure_ascii=False):
                return f"{name}, cell {number}"
    else:
        for number, row in enumerate(source.read_text(encoding="utf-8").splitlines(), start=1):
            if text in row:
                return f"{name}:{number}"
    return f"{name} ({built})"


def file_of(link: str, source: Page, site: Path) -> Path:
    """The file that a link of this page leads to. 404.html has links from the root of the host, where GitHub serves it."""
    path = unquote(urlsplit(link).path)
    root = urlsplit(address_tool.current(ROOT).pages).path
    if path.startswith("/"):
        path = site / path.removeprefix(root).lstrip("/")
    else:
        path = (source.path.parent / path).resolve() if path else source.path
    return path / "index.html" if path.is_dir() else path


def broken_links(site: Path) -> list[Fault]:
    """Links, pictures, scripts and style sheets of the site itself that are not there, and anchors that no page has."""
    found = []
    for source in pages(site):
        for tag in source.fetched() + source.anchors():
            link = target_of(tag)
            if not is_local(link):
                continue
            parts = urlsplit(link)
            path, fragment = file_of(link, source, site), unquote(parts.fragment)
            where = place_of(source, site, tag.line, fragment or Path(parts.path).stem)
            if not path.exists():
                found.append(Fault(where, "no such file", link))
            elif fragment and path.suffix == ".html" and fragment not in page(path).ids:
                found.append(Fault(where, "no such anchor", link))
    return found


def external_links(site: Path) -> dict[str, list[str]]:
    """Addresses on other hosts -> the pages that link to them. Nothing is fetched: a host that is down is no fault here."""
    found: dict[str, set[str]] = {}
    for source in pages(site):
        for link in source.links():
            if urlsplit(link).netloc:
                found.setdefault(link, set()).add(str(source.path.relative_to(site)))
    return {link: sorted(names) for link, names in sorted(found.items())}


def foreign_requests(site: Path) -> list[Fault]:
    """What a page would fetch from another host without being asked."""
    found = [
        Fault(f"{source.path.relative_to(site)}:{tag.line}", "asks another host", target_of(tag)[:100])
        for source in pages(site)
        for tag in source.fetched()
        if not is_local(target_of(tag)) and not target_of(tag).startswith("data:")
    ]
    urls = re.compile(r"""(?:url\(\s*['"]?|@import\s+['"])((?:https?:)?//[^'")]+)""")
    for path in sorted(site.rglob("*.css")):
        for url in urls.findall(path.read_text(encoding="utf-8")):
            found.append(Fault(str(path.relative_to(site)), "asks another host", url))
    return found


def pictures_without_text(site: Path) -> list[Fault]:
    """Pictures that say nothing to those who cannot see them. Without a text of its own a picture gets its path for one."""
    found = []
    for source in pages(site):
        for tag in source.tags:
            if tag.name != "img" or tag.attributes.get("aria-hidden") == "true":
                continue
            text = (tag.attributes.get("alt") or "").strip()
            if not text or text.endswith(PICTURE_FILES):
                name = Path(urlsplit(tag.attributes.get("src") or "").path).name[:60]
                where = place_of(source, site, tag.line, name)
                found.append(Fault(where, "picture without a text", name))
    return found


def wrong_addresses(site: Path, address: address_tool.Address | None = None) -> list[Fault]:
    """Buttons, edit and issue links, install cells and addresses of pages that are not this repository's own.

    address: by default the one that counts here, GITHUB_REPOSITORY before pyproject.toml.
    """
    address = address or address_tool.current(ROOT)
    found = []
    for source in pages(site):
        name, links = str(source.path.relative_to(site)), source.links()
        made_from = source_of(source.path, site)
        # A book without an address has no buttons.
        if made_from is not None and not address.is_placeholder:
            file = made_from.relative_to(ROOT).as_posix()
            wanted = {
                "repository button": address.url,
                "edit button": f"{address.url}/edit/main/{file}",
                "issue button": f"{address.url}/issues/new?",
            }
            if made_from.suffix == ".ipynb":
                colab = "https://colab.research.google.com/github"
                wanted["Colab button"] = f"{colab}/{address.slug}/blob/colab/{file}"
            for button, start in wanted.items():
                if not any(link == start or (start[-1] == "?" and link.startswith(start)) for link in links):
                    found.append(Fault(name, f"{button} leads elsewhere", f"no link to {start}"))
        for tag in source.tags:
            if tag.name == "link" and tag.attributes.get("rel") == "canonical":
                if not tag.attributes["href"].startswith(address.pages):
                    found.append(Fault(f"{name}:{tag.line}", "page of another book", tag.attributes["href"]))
    for path in sorted(
        path for path in site.rglob("*") if path.suffix in (".html", ".ipynb", ".md", ".txt", ".xml")
    ):
        name, text = path.relative_to(site), path.read_text(encoding="utf-8")
        for url in re.findall(r"ddpm-lib(?:\[[a-z,]+\])? @ git\+(https://github\.com/[\w.-]+/[\w.-]+)", text):
            if url != address.url:
                found.append(Fault(str(name), "installs from elsewhere", url))
        if not address.is_placeholder and (at := text.find(address_tool.PLACEHOLDER_OWNER)) >= 0:
            line = text.count("\n", 0, at) + 1
            found.append(Fault(f"{name}:{line}", "placeholder left", text[max(0, at - 40) : at + 40]))
    return found
