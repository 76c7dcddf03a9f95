"""What the build makes of a page, piece by piece: addresses, formulas, figures apart, a lean head, cut icons."""

from __future__ import annotations

import io
import re
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

pytest.importorskip("sphinx", reason="Sphinx is not installed: make install")

import ddpm_book
import formulas
import pages
import valid
from docutils.core import publish_doctree
from fontTools.ttLib import TTFont
from PIL import Image
from sphinx.application import Sphinx
from sphinx.builders.html._assets import _JavaScript
from sphinx.util.docutils import docutils_namespace

from ddpm_lib.figures import Line, derivation

FOUND = {"book/index", "book/notation"}


def built(tmp_path, site: str):
    """As much of a Sphinx application as a page needs."""
    target = lambda name: f"{name}.html"  # noqa: E731
    return SimpleNamespace(
        config=SimpleNamespace(html_baseurl=site, html_title="The book", html_theme_options={}),
        builder=SimpleNamespace(get_target_uri=target, format="html"),
        env=SimpleNamespace(found_docs=FOUND),
        outdir=tmp_path,
    )


@pytest.mark.parametrize(
    ("slug", "base", "prefix"),
    [
        ("your_name/ddpm-book", "", "/ddpm-book/"),
        ("Ada/notes", "https://ada.github.io/notes/", "/notes/"),
        ("Ada/ada.github.io", "https://ada.github.io/", "/"),
    ],
)
def test_a_book_without_an_address_has_no_buttons_that_lead_nowhere(
    tmp_path, monkeypatch, slug, base, prefix
):
    monkeypatch.setenv("GITHUB_REPOSITORY", slug)
    config = built(tmp_path, "").config
    ddpm_book.use_address(None, config)
    assert (config.html_baseurl, config.notfound_urls_prefix) == (base, prefix)
    buttons = ("use_repository_button", "use_edit_page_button", "use_issues_button")
    assert [config.html_theme_options[name] for name in buttons] == [bool(base)] * 3


@pytest.mark.parametrize("site", ["", "https://ada.github.io/notes/"])
def test_a_shared_link_names_whole_addresses_or_none(tmp_path, site):
    doctree = publish_doctree(
        'Title\n=====\n\nShort.\n\nThis paragraph is long enough to say "what" the page is about. Yes? '
        + 60 * "More. ",
        settings_overrides={"doctitle_xform": False},
    )
    context = {"title": "Five <em>names</em> &amp; more", "metatags": ""}
    ddpm_book.say_what_a_page_is_about(built(tmp_path, site), "book/x", "", context, doctree)
    tags = dict(re.findall(r'<meta \w+="([^"]+)" content="([^"]*)">', context["metatags"]))
    assert tags["og:title"] == tags["twitter:title"] == "Five names &amp; more"
    assert tags["description"].startswith(
        "This paragraph is long enough to say &quot;what&quot; the page is about. Yes? More."
    )
    assert len(tags["description"]) < 260 and tags["description"].endswith("More.")
    whole = {name: text for name, text in tags.items() if text.startswith("http")}
    expected = {
        "og:url": "book/x.html",
        "og:image": "_static/social.png",
        "twitter:image": "_static/social.png",
    }
    assert whole == ({name: site + path for name, path in expected.items()} if site else {})
    assert tags["twitter:card"] == ("summary_large_image" if site else "summary")


def test_the_sitemap_lists_every_page_of_a_book_with_an_address(tmp_path):
    ddpm_book.write_sitemap(built(tmp_path, ""), None)
    assert list(tmp_path.iterdir()) == []
    ddpm_book.write_sitemap(built(tmp_path, "https://ada.github.io/notes/"), None)
    places = [
        node.text for node in ElementTree.parse(tmp_path / "sitemap.xml").iter() if node.tag.endswith("loc")
    ]
    assert places == [f"https://ada.github.io/notes/{name}.html" for name in sorted(FOUND)]


# Formulas


def letters(mathml: str) -> str:
    return "".join(ElementTree.fromstring(f"<p>{mathml}</p>").itertext())


def test_a_formula_becomes_mathml():
    made = formulas.mathml(r"\bar\alpha_t = \prod_i \alpha_i", True)
    assert made.startswith('<math display="block">') and made.count("<math") == 1
    assert letters(made) == "α¯t=∏iαi"


def test_a_long_formula_of_the_text_may_end_a_line_after_a_sign():
    tex = r"p_\theta(x_{t-1} \mid x_t) = \mathcal N(x_{t-1}; \mu, \sigma_t^2 I) \le 1"
    pieces = re.findall(r"<math>.*?</math>", formulas.mathml(tex, False))
    assert len(pieces) == 3
    assert [letters(piece)[-1] for piece in pieces] == ["=", ",", "1"]
    whole = formulas.CONVERTER.convert_with_local_state(tex, displaystyle=False)
    assert letters("".join(pieces)) == letters(whole)
    assert formulas.mathml("x_t = a x_0", False).count("<math") == 1
    # what stands in braces or under a root is not torn
    assert formulas.mathml(r"\sqrt{a + b + c + d + e + f + g + h + i + j}", False).count("<math") == 1


def test_a_large_fence_stays_large_under_a_power():
    assert "<msup><mrow><mo" in formulas.mathml(r"\big\lVert x \big\rVert^2", True)


def test_a_formula_that_cannot_be_converted_is_named():
    with pytest.raises(ValueError, match=r"\\\\nothing.*plainer LaTeX"):
        formulas.mathml(r"\nothing x", False)


# Figures and the head of a page


def test_a_figure_is_its_picture_until_its_script_is_fetched(tmp_path):
    figure = derivation([Line("a = b", "Why, $a < b$.", 1.0, 1.0)], alt='Two "sides"')
    page = pages.FIGURE.sub(
        lambda match: pages.figure_apart(match, tmp_path / "_figures", "../"), f"<p>{figure.html}</p>"
    )
    key = re.search(r'data-script="\.\./_figures/([\w-]+)\.js"', page)[1]
    assert "<script" not in page and "base64" not in page and len(page) < 12_000
    assert (tmp_path / "_figures" / f"{key}.png").read_bytes() == figure.png
    script = (tmp_path / "_figures" / f"{key}.js").read_text(encoding="utf-8")
    assert f"<script>{script}</script>" in figure.html
    assert 'alt="Two &quot;sides&quot;"' in page and 'loading="lazy"' in page and "<figcaption>" in page


def test_a_figure_of_another_make_is_named(tmp_path):
    with pytest.raises(ValueError, match="scrubber-1 has no picture or no script in it.*make chapters"):
        pages.FIGURE.sub(
            lambda match: pages.figure_apart(match, tmp_path, ""),
            '<figure class="ddpm-figure" data-ddpm-figure="scrubber-1"></figure>',
        )


HEAD = """<link rel="preload" as="script" href="a/bootstrap.js?digest=1" />
  <script defer src="a/fontawesome.js?digest=1"></script>
  <script src="a/searchtools.js"></script>
  <script>document.documentElement.dataset.mode = localStorage.getItem("mode") || "";</script>
  <script>document.documentElement.dataset.theme = localStorage.getItem("theme") || "";</script>
"""


def test_the_head_of_a_page_is_lean():
    made = pages.lean(HEAD, pages.UNUSED)
    assert "fontawesome" not in made and "searchtools" not in made and "bootstrap.js" in made
    assert 'matchMedia("(prefers-color-scheme: dark)")' in made and 'getItem("mode") || "auto"' in made
    assert "searchtools" in pages.lean(HEAD, ("fontawesome.js",))


def test_icons_are_cut_out_of_the_fonts_of_the_theme(tmp_path):
    css = (pages.THEME / "styles" / "pydata-sphinx-theme.css").read_text(encoding="utf-8")
    codes = pages.icon_codes(css)
    assert 0xF185 in codes and len(codes) < 60
    pages.cut_font(pages.THEME / "vendor/fontawesome/webfonts/fa-solid-900.ttf", codes, tmp_path / "cut.woff")
    assert (tmp_path / "cut.woff").stat().st_size < 8_000
    assert 0xF185 in TTFont(tmp_path / "cut.woff").getBestCmap()
    # what the theme's own rules write, and the arrow of a folded part
    assert {0xE123, 0xF107} <= pages.icon_codes(css + 'a:after { content: "\ue123" }') and 0xE123 not in codes
    with pytest.raises(ValueError, match="no icon .*sun"):
        pages.icon_codes('.fa-moon:before{content:"\\f186"}')


# A small book, built

FIGURE = derivation([Line("a = b", "Why, $a < b$.", 1.0, 1.0)], alt="Two sides", caption="Below it.")
START = f"""# Noise

[](deep/page) ![Wide](wide.png)

$$x_t = a x_0$$ (eq-first)

In the text $x_t = a$, then $\\nothing < 1$.

```{{exercise}}
One
```

```{{exercise}}
Two
```

```{{eval-rst}}
.. [ONE] A source.
```

```{{raw}} html
<details><summary aria-label="Toggle hidden content">
<p class="collapsed admonition-title">Show the code</p>
<p class="expanded admonition-title">Hide the code</p>
</summary>x</details>
<figure class="film"><figcaption>Last</figcaption><img alt="" src="x.png" loading="eager"><style>b {{}}</style></figure>
{FIGURE.html}
```
"""
PROJECT = {
    "extensions": ["myst_parser", "sphinx_exercise", "formulas", "pages", "valid", "ledger_page"],
    "myst_enable_extensions": ["dollarmath", "attrs_inline"],
    "html_math_renderer": "mathml",
    "html_title": "Noise & pictures",
    "root_doc": "start",
}
DEEP = (
    "# Deep\n\n```{raw} html\n"
    + FIGURE.html
    + "\n```\n\n```{changes} nothing\n```\n\n```{ledger} empty.json\n```\n"
)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The folder of a built book of two pages, and what was said of it."""
    source = tmp_path_factory.mktemp("book")
    (source / "deep").mkdir()
    (source / "start.md").write_text(START + "\n```{toctree}\ndeep/page\n```\n", encoding="utf-8")
    (source / "deep" / "page.md").write_text(DEEP, encoding="utf-8")
    (source / "deep" / "empty.json").write_text("[]", encoding="utf-8")
    Image.new("L", (30, 20)).save(source / "wide.png")
    said = io.StringIO()
    with docutils_namespace():
        Sphinx(source, None, source / "out", source / "trees", "html", PROJECT, None, said).build()
    return source / "out", said.getvalue()


def page_of(small, name: str) -> str:
    return (small[0] / f"{name}.html").read_text(encoding="utf-8")


def test_scripts_wait_for_the_text_and_keep_their_order(small):
    head = page_of(small, "start").partition("</head>")[0]
    scripts = re.findall(r"<script([^>]*)>", head)
    assert len(scripts) > 3 and all("defer" in script for script in scripts)
    assert head.index("documentation_options.js") < head.index("doctools.js") < head.index("book.js")
    assert "searchindex" not in head and "search_passages" not in head


def test_a_script_without_a_file_waits_only_if_it_asks_for_another():
    name = _JavaScript("", body="DOCUMENTATION_OPTIONS.pagename = 'x';")
    hint, soon = _JavaScript("", body="let toggleHintShow = 'x';"), _JavaScript("x.js", **{"async": "async"})
    assert pages.after_the_text(name).attributes == name.attributes | {"type": "module"}
    assert pages.after_the_text(hint) == hint and pages.after_the_text(soon) == soon


@pytest.mark.parametrize("name", ["start", "search"])
def test_what_no_page_uses_is_left_out(tmp_path, name):
    files = ("book.js", "fontawesome.js", "sphinx-thebe.js", "searchtools.js")
    context = {
        "content_root": "",
        "script_files": [_JavaScript(file) for file in files]
        + [_JavaScript("", body="const THEBE_JS_URL = 1")],
        "css_files": [SimpleNamespace(filename=file) for file in ("book.css", "sphinx-thebe.css")],
    }
    pages.light_page(None, name, "", context, None)
    kept = [file.filename for kind in ("script_files", "css_files") for file in context[kind]]
    assert kept == ["book.js", "book.css"]
    assert "searchtools" not in context["lean"](HEAD) and "fontawesome" not in context["lean"](HEAD)


def test_pictures_know_their_size_and_wait_until_they_are_seen(small):
    page = page_of(small, "start")
    (picture,) = re.findall(r'<img [^>]*alt="Wide"[^>]*>', page)
    assert 'width="30" height="20"' in picture and 'loading="lazy"' in picture
    (still,) = re.findall(r'<img [^>]*alt="Two sides"[^>]*>', page)
    with Image.open(small[0] / re.search(r'src="([^"]+)"', still)[1]) as stored:
        assert f'width="{stored.width}" height="{stored.height}" loading="lazy"' in still
    # what says itself when it wants to be fetched, or is not the book's, stays as it is
    assert '<img alt="" src="x.png" loading="eager">' in page
    sources, named = (
        {"a.png": "../wide.png", "a b.png": "../wide.png"},
        '<img src="../_images/a%20b.png" alt="">',
    )
    resized = pages.PICTURE.sub(lambda match: pages.sized(match, sources, small[0]), named)
    assert 'width="30" height="20"' in resized
    for html in ('<img src="_images/b.png" alt="">', '<img loading="eager" src="_images/a.png" alt="">'):
        assert pages.PICTURE.sub(lambda match: pages.sized(match, sources, small[0]), html) == html


def test_a_figure_of_a_deep_page_is_fetched_from_the_top(small):
    for name, up in (("start", "./"), ("deep/page", "../")):
        page = page_of(small, name)
        (script,) = re.findall(r'data-script="([^"]+)"', page)
        assert script.startswith(f"{up}_figures/") and f'src="{script.removesuffix("js")}png"' in page
    assert (small[0] / script.removeprefix("../")).is_file()


def test_a_figure_without_its_picture_or_without_its_script_is_named(tmp_path):
    whole = f"<p>{FIGURE.html}</p>"
    for part in (pages.STILL, pages.SCRIPT):
        with pytest.raises(ValueError, match="no picture or no script"):
            pages.FIGURE.sub(lambda match: pages.figure_apart(match, tmp_path, ""), part.sub("", whole))


def test_figures_begin_with_their_style_and_end_with_their_caption(small):
    page = page_of(small, "start")
    film, figure = (
        match[2]
        for match in re.finditer(r"<figure [^>]*class=\"(film|ddpm-figure)\"[^>]*>(.*?)</figure>", page, re.S)
    )
    assert film.startswith("<style>b {}</style>") and film.strip().endswith("<figcaption>Last</figcaption>")
    assert figure.startswith("<style>") and figure.strip().endswith("<figcaption>Below it.</figcaption>")
    for part in (film, figure):
        assert part.count("<img") == part.count("<style>") == part.count("<figcaption>") == 1


def test_what_extensions_write_amiss_is_mended(small):
    page = page_of(small, "start")
    assert page.count('class="exercise') == 2 and 'id="exercise-content"' not in page
    assert 'role="listitem"' in page and "doc-biblioentry" not in page
    fold = '<summary><span class="collapsed admonition-title">Show the code</span><span class="expanded admonition-title">Hide the code</span></summary>'
    assert fold in page
    assert valid.REPEATED.sub(r"\1", '<section id="solution-content">') == "<section>"


def test_formulas_on_a_page_are_mathml_with_their_number(small):
    page = page_of(small, "start")
    (block,) = re.findall(r'<div class="math[^>]*>(.*?)</div>', page, re.S)
    assert '<span class="eqno">(1)' in block and 'title="Link to this equation"' in block
    assert block.count('<math display="block">') == 1
    assert "In the text <math><" in page
    # what cannot be converted is shown as it was written, and the build says so
    assert "<code>\\nothing &lt; 1</code>" in page
    assert "cannot convert '\\\\nothing < 1'" in small[1]


def test_signs_are_letters_and_a_line_ends_after_a_relation():
    assert formulas.mathml(r"a \le b < c \ldots", True).count("&") == 1
    formula = formulas.mathml(r"\hat x_0 + \sigma_t \varepsilon_t \le a_1 b_1 c_1 d_1 e_1 f_1", False)
    first, second = re.findall(r"<math>.*?</math>", formula)
    assert letters(first)[-1] == "≤" and 'form="infix"' in first[first.rindex("<mo") :]
    assert letters(second) == "a1b1c1d1e1f1"
    # nothing empty after a sign that ends the formula
    assert "<math></math>" not in formulas.mathml(r"a_1 b_1 c_1 d_1 e_1 f_1 g_1 h_1 i_1 =", False)
    assert "displaystyle" in formulas.mathml(r"\frac{a}{b}", True) or 'display="block"' in formulas.mathml(
        "a", True
    )
    assert 'display="block"' not in formulas.mathml("a", False)


def test_the_root_leads_to_the_first_page(small, tmp_path):
    page = (small[0] / "index.html").read_text(encoding="utf-8")
    assert 'content="0; url=start.html"' in page and '<a href="start.html">' in page
    assert page.count("Noise &amp; pictures") == 2 and "& " not in page
    app = built(tmp_path, "")
    valid.write_first_page(app, RuntimeError("no book"))
    pages.write_icons(app, RuntimeError("no book"))
    assert list(tmp_path.iterdir()) == []


def test_the_icons_of_the_theme_are_beside_the_book(small):
    for name, code in (("fa-solid-900", 0xF107), ("fa-solid-900", 0xF185), ("fa-brands-400", 0xF09B)):
        assert code in TTFont(small[0] / "_static" / f"{name}.woff").getBestCmap()


def test_tables_that_cannot_be_made_are_named(small):
    assert "no changes are called nothing: choose from ladder, five_names" in small[1]
    assert "no ledger there, or no row in it" in small[1]
