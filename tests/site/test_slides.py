"""Slides: the rule that makes them from a page, and the browser that lays them out without a line too much."""

from pathlib import Path

import pytest
import slides
from bs4 import BeautifulSoup

pytest.importorskip("sphinx_revealjs", reason="reveal.js is not installed: make install")
BUILT = sorted((slides.HTML / "book").glob("[0-9]*.html"))

CELL = '<div class="cell{}"><div class="cell_input"><pre>{}</pre></div><div class="cell_output"><div class="output">{}</div></div></div>'
PAGE = f"""<html><head><link rel="stylesheet" href="../_static/pygments.css"/></head><body><article class="bd-article">
<section id="title"><h1>A chapter<a class="headerlink" href="#title">#</a></h1><p><strong>Which question?</strong></p>
{CELL.format("", "import ddpm_lib", "")}<p>The opening, in <em>Fig. 3</em> of old. Its rest.</p><img src="../_images/a.png"/>
<section id="one"><h2>Section one</h2><p>First sentence. Second sentence. The formula is:</p><p>First words, and enough of them to stand alone. More words.</p>
<p>They agree. The sentence after a short one is shown. A third is not.</p><p>For two normal laws the cheapest plan is known. The cost is</p><p>and no more.</p>
<figure class="ddpm-figure" data-script="../_figures/a.js"><button>play</button></figure>
<ul><li><p>A point. Its reason.</p></li><li><p>Another.</p></li></ul>
<div class="cell tag_hide-input"><details class="hide"><summary>Show</summary><pre>folded code</pre></details>
<div class="cell_output"><div class="output">a figure</div></div></div>
<div class="dropdown admonition"><p class="admonition-title">The algebra</p><p>folded algebra</p></div>
<section id="deeper"><h3>Predict first</h3><p>Take eight layers with windows of three, one after another. How far do they see?</p>
<div class="dropdown admonition"><p class="admonition-title">Our answer</p><p>The answer.</p></div><p>What follows.</p></section></section>
<section id="two"><h2>Section two</h2><div class="highlight"><pre>{f"a line of code{chr(10)}" * 90}</pre></div><pre>{"wide " * 200}</pre>
{"<p>" + "word " * 60 + "</p>"} {"<p>Another paragraph.</p>" * 30}</section>
<section id="exercises"><h2>Exercises</h2><div class="exercise admonition"><p class="admonition-title">Exercise 1</p>
<section id="task"><p>Do this. And that.</p></section></div>{CELL.format("", "def mine(): ...", "")}<div class="solution dropdown admonition">a solution</div></section>
<section id="references"><h2>References</h2><p>A paper.</p></section></section></article></body></html>"""


def shown(text: str, without_notes: bool = True) -> str:
    soup = BeautifulSoup(text, "html.parser")
    for note in soup.select(".note") if without_notes else []:
        note.decompose()
    return " ".join(soup.select_one("#source").get_text(" ").split())


def test_a_slide_shows_first_sentences_and_keeps_the_rest_as_notes():
    made = slides.slides_of(PAGE, "page.html")
    text = shown(made)
    for sentence in (
        "Which question?",
        "First sentence. Second sentence. The formula is:",
        "First words, and enough of them to stand alone.",
        "They agree. The sentence after a short one is shown.",
        "For two normal laws the cheapest plan is known. The cost is",  # leads to what follows
        "How far do they see?",  # a question is shown whole
        "play",
        "A point. Its reason.",
        "The answer.",
    ):
        assert sentence in text
    for hidden in ("More words", "A third is not"):
        assert hidden not in text and hidden in shown(made, without_notes=False)
    assert "Do this. And that." in text  # an exercise is shown whole


@pytest.mark.parametrize(
    "left_out",
    [
        "import ddpm_lib",
        "folded code",
        "folded algebra",
        "def mine",
        "a solution",
        "A paper.",
        "#",
        "References",
    ],
)
def test_what_is_not_for_a_screen_is_left_out(left_out):
    assert left_out in BeautifulSoup(PAGE, "html.parser").get_text()
    assert left_out not in shown(slides.slides_of(PAGE, "page.html"), without_notes=False)


def test_addresses_lead_from_the_slides_to_the_book():
    made = slides.slides_of(
        PAGE.replace("Another.", '<a href="02_b.html#x">b</a> <a href="#one">c</a>'), "page.html"
    )
    assert 'data-script="../html/_figures/a.js"' in made
    assert 'src="../html/_images/a.png"' in made and 'href="../html/_static/pygments.css"' in made
    assert 'href="../html/book/02_b.html#x"' in made and 'href="_static/slides.css"' in made


def test_what_is_no_chapter_is_refused(tmp_path):
    with pytest.raises(ValueError, match="index.html: there is no chapter"):
        slides.slides_of("<html><body><p>words</p></body></html>", "index.html")
    with pytest.raises(ValueError, match="99_gone.html is not there: build the book first"):
        slides.write_slides([Path("book/99_gone.ipynb")], tmp_path / "html", tmp_path / "slides")


def laid_out(browser, path: Path) -> tuple[list[dict], list[str]]:
    """Each slide with its text, and the largest share of the screen, down and across, that anything on it reaches; requests."""
    asked: list[str] = []
    page = browser.new_page(viewport={"width": 1280, "height": 720})
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-ready=yes]", timeout=120_000)
    found = page.evaluate(
        """() => Reveal.getSlides().map(slide => {
            const { h, v } = Reveal.getIndices(slide);
            Reveal.slide(h, v);
            const edge = slide.getBoundingClientRect(), reach = { down: 0, across: 0, text: slide.innerText };
            for (const each of slide.querySelectorAll(".body, .body *")) {
                if (each.closest("details:not([open])")) continue;
                const box = each.getBoundingClientRect();
                if (!box.width || !box.height) continue;
                reach.down = Math.max(reach.down, box.bottom / innerHeight);
                reach.across = Math.max(reach.across, box.right / innerWidth);
            }
            reach.notes = slide.querySelector("aside").textContent;
            return reach;
        })"""
    )
    page.close()
    return found, asked


def test_nothing_overflows_and_headings_go_on(browser, tmp_path):
    html = tmp_path / "html" / "book"
    html.mkdir(parents=True)
    (html / "01_a.html").write_text(PAGE)
    [path] = slides.write_slides([Path("01_a.ipynb")], tmp_path / "html", tmp_path / "slides")
    found, _ = laid_out(browser, path)
    assert max(each["down"] for each in found) <= 1 and max(each["across"] for each in found) <= 1
    texts = [" ".join(each["text"].split()) for each in found]
    assert texts[0] == "A chapter Which question?"
    two = [text for text in texts if text.startswith("Section two")]
    assert len(two) >= 4 and sum(text.count("a line of code") for text in two) == 90
    assert sum(text.count("Another paragraph.") for text in two) == 30
    assert (
        max(text.count("a line of code") for text in two) <= 28
    )  # longer code goes on, in letters of its size
    assert "Predict first Our answer The answer." in texts  # on a slide of its own
    assert "Section one What follows." in texts
    assert any("More words." in each["notes"] for each in found)


@pytest.mark.site
@pytest.mark.skipif(not BUILT, reason="the book is not built: make site")
def test_a_chapter_of_the_book_fits_its_slides_and_asks_no_other_host(browser, tmp_path):
    (tmp_path / "html").symlink_to(slides.HTML)
    chapter = slides.ROOT / "book" / f"{BUILT[0].stem}.ipynb"
    [path] = slides.write_slides([chapter], tmp_path / "html", tmp_path / "slides")
    found, asked = laid_out(browser, path)
    assert len(found) > 20
    assert all(url.startswith(("file:", "data:")) for url in asked)
    for each in found:
        assert each["down"] <= 1 and each["across"] <= 1, each["text"]
        assert each["text"].strip()


@pytest.mark.site
@pytest.mark.skipif(not BUILT, reason="the book is not built: make site")
@pytest.mark.parametrize("page", BUILT, ids=lambda page: page.stem)
def test_every_chapter_gives_slides(page):
    made = slides.slides_of(page.read_text(encoding="utf-8"), page.name)
    assert made.count('class="block"') > 50 and "Show code cell source" not in made


@pytest.mark.site
@pytest.mark.skipif(not BUILT, reason="the book is not built: make site")
def test_interactive_figures_work_and_hand_the_keys_back(browser, tmp_path):
    (tmp_path / "html").symlink_to(slides.HTML)
    [path] = slides.write_slides([Path(BUILT[0].stem)], tmp_path / "html", tmp_path / "slides")
    errors = []
    page = browser.new_page(viewport={"width": 1280, "height": 720})
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-ready=yes]", timeout=120_000)
    assert page.locator("[data-script]").count() == page.locator(".ddpm-stage").count() > 0
    page.evaluate(
        """() => { const { h, v } = Reveal.getIndices(document.querySelector(".ddpm-stage").closest("section")); Reveal.slide(h, v); }"""
    )
    assert page.locator(".ddpm-stage").first.is_visible() and page.locator(".present .ddpm-still").is_hidden()
    at, box = page.evaluate("Reveal.getIndices()"), page.locator(".present .ddpm-stage input[type=range]")
    before = box.input_value()
    box.press("ArrowRight")
    assert page.evaluate("Reveal.getIndices()") == at and box.input_value() != before
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("Reveal.getIndices()")["h"] == at["h"] + 1
    page.close()
    assert errors == []
