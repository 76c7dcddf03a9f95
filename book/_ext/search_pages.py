"""The search of the book: its passages, in a file that static/search.js fetches when a reader begins to search.

The search that comes with Sphinx knows of a page which words stand on it, not where and how often, so that it can neither rank
nor quote passages. It is switched off here; its page stays, with our own results. All that is needed lies beside the pages, and
works from a file as from a server.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from unicodedata import normalize

from bs4 import BeautifulSoup, NavigableString, Tag
from sphinx.application import Sphinx
from sphinx.search.en import SearchEnglish

from ddpm_lib.files import write_whole

FILE = "_static/search_passages.js"
# How much a page has to say about a word that it uses; a chapter 1.
WEIGHTS = {
    "notation": 1.1,
    "glossary": 0.6,
    "how_to_use": 0.8,
    "how_to_cite": 0.8,
    "conversions": 0.8,
    "rosetta": 0.8,
    "bug_collection": 0.8,
    "index": 0.5,
    "for_teachers": 0.5,
    "ledger": 0.5,
    "reference": 0.4,
    "references": 0.3,
    "where_this_book_came_from": 0.3,
}
# What readers call the matter of a page, where it has another name or the word falls on many pages.
CALLED = {
    "01_from_noise_to_a_picture": "DDPM, posterior, forward process, reverse process",
    "02_destroying_data_on_purpose": "noise schedule, linear, cosine, sigmoid, signal-to-noise ratio, log-SNR",
    "03_the_perfect_denoiser": "posterior mean, optimal denoiser, score, Tweedie's formula",
    "04_why_predicting_noise_is_maximum_likelihood": "ELBO, variational bound, KL divergence, posterior, derivation of the loss",
    "05_five_names_for_one_network": "epsilon-prediction, x0-prediction, v-prediction, flow matching, EDM, loss weights",
    "06_a_unet_you_can_hold_in_your_head": "UNet, architecture, attention, residual block, time embedding",
    "07_training_on_mnist": "training, EMA, learning rate",
    "08_cifar10_in_colour": "recipe, ablation, resolution",
    "09_asking_for_a_seven": "classifier-free guidance, CFG, classifier guidance, conditional, labels",
    "10_how_good_is_it": "evaluation, FID, KID, Inception, Frechet distance, precision and recall",
    "train_on_your_own": "own photos, own images, own data set, custom data, folder of pictures",
    "troubleshooting": "problems, errors, debugging, nan, loss does not fall, bad samples",
}
# What is no text to read, or gives away what the reader is to find.
LEFT_OUT = {
    *(
        "headerlink",
        "equation-check",
        "eqno",
        "deeper-note",
        "output",
        "solution",
        "live-model",
        "copybtn",
    ),
    *(
        "ways-in",
        "toctree-wrapper",
        "cards",
        "caption-number",
        "tag_hide-input",
    ),
}
BRIEF = ("script", "style", "noscript", "svg", "picture", "summary", "button")
# Parsing takes its time; half of a page is colours of code and figures.
ARTICLE = re.compile(r"<article.*?</article>", re.S)
UNREAD = re.compile(r"<(script|style|svg|picture|noscript)\b.*?</\1>", re.S)
PRE = re.compile(r"(?<=<pre>).*?(?=</pre>)", re.S)
TAG = re.compile(r"<[^>]+>")
ANSWER = "Our answer"
# Passages. What holds others is not one itself.
BLOCKS = ("p", "li", "tr", "pre", "figcaption", "dd", "caption", "div")
HEADINGS = ("h1", "h2", "h3", "h4")
CODE = ">"
"""The first letter of a passage that is code."""


def passages(html: str) -> list[list]:
    """The sections of a built page, in order: [id, heading, [passages]]. A function of the library, a word of the glossary and
    a reference are sections, too."""
    article = ARTICLE.search(html)
    bare = UNREAD.sub("", article[0] if article else html)
    bare = PRE.sub(lambda match: TAG.sub("", match[0]), bare)
    found: list[list] = []
    for node, anchor, heading in _walk(BeautifulSoup(bare, "html.parser")):
        if heading is not None:
            found.append([anchor, heading, []])
        elif found and (text := written(node)):
            found[-1][2].append(CODE + text if node.name == "pre" else text)
    return [section for section in found if section[1]]


def _walk(node: Tag) -> Iterator[tuple[Tag, str, str | None]]:
    """(node, id, heading) for each beginning of a section, (node, "", None) for each passage."""
    for child in node.find_all(True, recursive=False):
        if _left_out(child):
            continue
        if child.name in HEADINGS:
            section = child.find_parent(id=True)
            yield child, section["id"] if section else "", written(child)
        elif child.name == "dt" and "sig" in child.get("class", ()):
            name = (
                child.select_one(".sig-prename"),
                child.select_one(".sig-name"),
            )
            title = child.get("id") or "".join(
                part.get_text() for part in name if part
            )
            yield child, child.get("id", ""), title.removeprefix("ddpm_lib.")
            yield child, "", None
        elif child.name == "dt" and child.get("id", "").startswith("term-"):
            yield child, child["id"], written(child)
        elif "citation" in child.get("class", ()):
            yield (
                child,
                child.get("id", ""),
                written(child.find("span", "label")).strip("[]"),
            )
            yield from _walk(child)
        elif child.name in ("tr", "pre") or (
            child.name in BLOCKS and not child.find(BLOCKS + HEADINGS + ("dt",))
        ):
            yield child, "", None
        else:
            yield from _walk(child)


def _left_out(node: Tag) -> bool:
    if node.name in BRIEF or not LEFT_OUT.isdisjoint(node.get("class", ())):
        return True
    title = node.find("p", "admonition-title", recursive=False)
    return title is not None and title.get_text().strip() == ANSWER


def written(node: Tag) -> str:
    """The text of a node in one line, its formulas in letters; code keeps its lines."""
    if node.name == "pre":
        return node.get_text().strip("\n")
    if node.name == "tr":
        cells = (written(cell) for cell in node.find_all(["th", "td"]))
        return " · ".join(filter(None, cells))
    parts = []
    for child in node.children:
        if isinstance(child, NavigableString):
            parts.append(str(child))
        elif child.name == "math":
            parts.append(formula(child))
        elif not _left_out(child):
            parts.append(
                f" {written(child)} " if child.name in BLOCKS else _inner(child)
            )
    text = normalize("NFC", " ".join("".join(parts).split()))
    return re.sub(r"\s+([,.;:?!)\]])", r"\1", text)


def _inner(node: Tag) -> str:
    """Like written, with the spaces at both ends, which part words."""
    return written(node) if node.find(True) else node.get_text()


ACCENTS = {
    "¯": "\u0304",
    "‾": "\u0304",
    "^": "\u0302",
    "ˆ": "\u0302",
    "~": "\u0303",
    "˜": "\u0303",
}
LOW = dict(
    zip(
        "0123456789+-=()aehijklmnoprstuvxβγρφχ",
        "₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓᵦᵧᵨᵩᵪ",
        strict=True,
    )
) | {"−": "₋"}
HIGH = dict(zip("0123456789+-=()niT", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱᵀ", strict=True)) | {
    "−": "⁻",
    "′": "′",
    "″": "″",
}
SPACED = set("=≠<>≤≥≈≡∼∝→←⟺∈+−±∣|∥×")
UNSEEN = re.compile("[\u2062-\u2064\ufe00]")
# A minus that begins something.
SIGN = re.compile(r"((?:^|[(\[{,=])\s*)−\s+")


def formula(node: Tag) -> str:
    """MathML in letters on one line, as it would be read out: x_t = √ᾱ_t x_0 with low and high letters where there are some."""
    name, parts = node.name, node.find_all(True, recursive=False)
    if name == "mspace":
        return " "
    if not parts:
        text = UNSEEN.sub("", node.get_text())
        if text == "\u2061":
            return " "
        return f" {text} " if name == "mo" and text in SPACED else text
    read = [formula(part).strip() for part in parts]
    if name == "msub":
        return read[0] + _placed(read[1], LOW, "_")
    if name == "msup":
        return read[0] + _placed(read[1], HIGH, "^")
    if name in ("msubsup", "munderover"):
        return (
            read[0] + _placed(read[1], LOW, "_") + _placed(read[2], HIGH, "^")
        )
    if name == "munder":
        return read[0] + _placed(read[1], LOW, "_")
    if name == "mover":
        return read[0] + ACCENTS.get(read[1], read[1])
    if name == "mfrac":
        return "/".join(map(_whole, read))
    if name == "msqrt":
        return "√" + _whole("".join(map(formula, parts)).strip())
    if name == "mtable":
        return " ".join(read)
    if name == "mtr":
        return "".join(read)
    return SIGN.sub(r"\1−", "".join(map(formula, parts)))


def _placed(text: str, letters: dict[str, str], mark: str) -> str:
    if all(letter in letters for letter in text):
        return "".join(letters[letter] for letter in text)
    return mark + (text if len(text) == 1 else f"({text})")


def _whole(text: str) -> str:
    return (
        text
        if re.fullmatch(r"\w[\u0300-\u036f]?[₀-ₜᵢᵣᵤᵥ\w]*", text)
        else f"({text})"
    )


def write_passages(app: Sphinx, error: Exception | None) -> None:
    """All passages, and Sphinx's list of words that say nothing and its stemmer, as one script: from a file, too, a page may
    fetch a script, and nothing else."""
    if error or app.builder.format != "html":
        return
    pages = []
    for name in sorted(app.env.found_docs):
        address = app.builder.get_target_uri(name)
        # the page as it was written
        html = Path(app.outdir, address).read_text(encoding="utf-8")
        short = name.rpartition("/")[2]
        if sections := passages(html):
            pages.append(
                [
                    address,
                    WEIGHTS.get(short, 1),
                    CALLED.get(short, ""),
                    sections,
                ]
            )
    words = SearchEnglish({})
    known = {"common": sorted(words.stopwords), "pages": pages}
    script = "\n".join(
        [
            "var bookSearch = (() => {",
            words.js_stemmer_code,
            "return Object.assign({ stemmer: new Stemmer() },",
            json.dumps(known, ensure_ascii=False, separators=(",", ":")),
            ");",
            "})();\n",
        ]
    )
    write_whole(
        Path(app.outdir, FILE),
        lambda part: Path(part).write_text(script, encoding="utf-8"),
    )


def no_other_search(app: Sphinx) -> None:
    if app.builder.format == "html":
        app.builder.search = False


def search_page(app: Sphinx) -> Iterator[tuple[str, dict, str]]:
    yield "search", {}, "search.html"


def setup(app: Sphinx) -> dict:
    app.add_js_file("search.js", loading_method="defer")
    app.add_css_file("search.css")
    app.connect("builder-inited", no_other_search)
    app.connect("html-collect-pages", search_page)
    # After what mends the pages.
    app.connect("build-finished", write_passages, priority=900)
    return {
        "version": "1",
        "parallel_read_safe": True,
        "parallel_write_safe": True,
    }
