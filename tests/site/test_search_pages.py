"""The index of the search: which passages it takes out of a built page, and what a formula is there."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

import pytest

pytest.importorskip("sphinx", reason="Sphinx is not installed: make install")

import formulas
import search_pages
from bs4 import BeautifulSoup
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace

PAGE = """<html><body><nav><p>Contents: noise</p></nav><article class="bd-article">
<section id="top"><h1><span class="section-number">3 </span>Noise<a class="headerlink" href="#top">#</a></h1>
<p>A <em>little</em> noise, in <math><msub><mi>x</mi><mi>t</mi></msub></math>.</p>
<div class="math"><span class="eqno">(3.1)</span><math><mi>a</mi><mo>=</mo><mi>b</mi></math></div>
<section id="low"><h2>Below<a class="headerlink" href="#low">#</a></h2>
<table><tr><th>Symbol</th><th>Meaning</th></tr><tr><td><p>T</p></td><td><p>steps</p></td></tr></table>
<ul><li><p>first</p></li><li>second</li></ul>
<div class="cell"><div class="cell_input"><div class="highlight"><pre><span></span><span class="n">a</span> <span>=</span> 1
<span class="k">return</span> a</pre></div></div>
<div class="cell_output"><div class="output"><pre>42</pre></div></div></div>
<div class="cell tag_hide-input"><pre>plt.show()</pre></div>
<div class="dropdown admonition"><p class="admonition-title">Our answer</p><p>(c) is right.</p></div>
<div class="admonition"><p class="admonition-title">Why</p><p>Because.</p></div>
<div class="solution admonition"><p>Solved.</p></div>
<figure><img alt="x"><figcaption><p><span class="caption-number">Figure 1 </span>A plot.</p></figcaption></figure>
<figure class="ddpm-figure"><style>b {}</style><script>let a;</script><figcaption>A dial.</figcaption></figure>
</section>
<dl class="py"><dt class="sig" id="ddpm_lib.chain.Chain"><span class="sig-prename">ddpm_lib.chain.</span><span class="sig-name">Chain</span>(beta)</dt>
<dd><p>A chain.</p></dd></dl>
<dl class="glossary"><dt id="term-noise">noise</dt><dd><p>What is added.</p></dd></dl>
<div class="citation" id="id7"><span class="label">[Ho et al., 2020]</span><p>Jonathan Ho. Denoising.</p></div>
</section></article></body></html>"""


def test_a_page_is_taken_apart_into_sections_and_their_passages():
    assert search_pages.passages(PAGE) == [
        ["top", "3 Noise", ["A little noise, in xₜ.", "a = b"]],
        [
            "low",
            "Below",
            [
                "Symbol · Meaning",
                "T · steps",
                "first",
                "second",
                ">a = 1\nreturn a",
                "Why",
                "Because.",
                "A plot.",
                "A dial.",
            ],
        ],
        ["ddpm_lib.chain.Chain", "chain.Chain", ["ddpm_lib.chain.Chain(beta)", "A chain."]],
        ["term-noise", "noise", ["What is added."]],
        ["id7", "Ho et al., 2020", ["Jonathan Ho. Denoising."]],
    ]


def test_a_page_without_a_heading_has_no_passages():
    assert search_pages.passages("<article><p>Text alone.</p></article>") == []


@pytest.mark.parametrize(
    ("tex", "read"),
    [
        (r"x_t = \sqrt{\bar\alpha_t}\, x_0", "xₜ = √ᾱₜ x₀"),
        (r"\sqrt{1 - \bar\alpha_t}", "√(1 − ᾱₜ)"),
        (r"\hat x_0", "x̂₀"),
        (r"\tilde\beta_t", "β̃ₜ"),
        (r"\frac{a + b}{c}", "(a + b)/c"),
        (r"\frac{1}{2}", "1/2"),
        (r"x_{t-1}^2", "x_(t − 1)²"),
        (r"\sigma_\theta", "σ_θ"),
        (r"-\log p(x)", "−log p(x)"),
        (r"e^{-x}", "e^(−x)"),
        (r"s'", "s′"),
        (r"\sum_{i=1}^{n} a_i", "∑_(i = 1)ⁿaᵢ"),
        (r"q(x \mid y)", "q(x ∣ y)"),
    ],
)
def test_a_formula_is_written_in_letters(tex, read):
    for display in (False, True):
        made = BeautifulSoup(f"<p>{formulas.mathml(tex, display)}</p>", "html.parser")
        assert search_pages.written(made.p) == read


def test_the_lines_of_an_aligned_formula_follow_each_other():
    made = formulas.mathml(r"\begin{aligned} a &= b, \\ c &= d \end{aligned}", True)
    assert search_pages.formula(BeautifulSoup(made, "html.parser").math) == "a= b, c= d"


def test_what_is_known_of_a_page_is_about_a_page_that_there_is():
    book = Path(search_pages.__file__).parents[1]
    there = {path.stem for path in book.iterdir() if path.suffix in (".ipynb", ".md")}
    # a page that another change brings may be known before
    assert {*search_pages.WEIGHTS, *search_pages.CALLED} - there <= {"train_on_your_own"}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    source = tmp_path_factory.mktemp("book")
    (source / "index.md").write_text(
        "# Start\n\nNo noise “yet”.\n\n```{toctree}\nnotation\n```\n", encoding="utf-8"
    )
    (source / "notation.md").write_text("# Notation\n\n## Steps\n\nSo many.\n", encoding="utf-8")
    project = {
        "extensions": ["myst_parser", "pages", "search_pages"],
        "html_theme": "sphinx_book_theme",
        "templates_path": [str(Path(search_pages.__file__).parents[1] / "_templates")],
    }
    said = io.StringIO()
    with docutils_namespace():
        Sphinx(source, None, source / "out", source / "trees", "html", project, None, said).build()
    return source / "out"


def index_of(built) -> dict:
    script = (built / search_pages.FILE).read_text(encoding="utf-8")
    assert script.startswith("var bookSearch = ") and "var Stemmer" in script
    return json.loads(next(line for line in script.splitlines() if line.startswith('{"common"')))


def test_the_build_writes_one_script_with_every_passage(built):
    index = index_of(built)
    assert "the" in index["common"]
    assert index["pages"] == [
        ["index.html", 0.5, "", [["start", "Start", ["No noise “yet”."]]]],
        ["notation.html", 1.1, "", [["notation", "Notation", []], ["steps", "Steps", ["So many."]]]],
    ]


def test_sphinxs_own_search_is_not_there_and_its_page_is_ours(built):
    assert not (built / "searchindex.js").exists()
    page = (built / "search.html").read_text(encoding="utf-8")
    for part in ("searchtools", "language_data", "searchindex"):
        assert part not in page
    assert page.count('class="bd-search"') == 2 and 'class="found"' in page and "search.js" in page
    assert "search_passages" not in page and "search_passages" not in (built / "index.html").read_text(
        "utf-8"
    )


def test_a_chapter_of_a_thousand_lines_is_read_in_a_moment():
    body = (
        "<p>word <b>bold</b> <math><mi>x</mi></math></p>" * 1500
        + "<pre>"
        + "<span>a</span>" * 20_000
        + "</pre>"
    )
    began = time.process_time()
    search_pages.passages(f"<article><section id='a'><h1>A</h1>{body}</section></article>")
    assert time.process_time() - began < 5
