"""Plain notebooks say what the pages say: for each chapter, for each piece of MyST, and in a real JupyterLab."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from copy import deepcopy
from functools import cache
from pathlib import Path

import address
import chapters
import nbformat
import numbering
import plain
import pytest
import reading
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

BOOK = numbering.Book()
NOTEBOOKS = [page for page in BOOK.pages.values() if page.is_notebook]
TEXTS = [page for page in BOOK.pages.values() if not page.is_notebook and page.name not in plain.SITE_ONLY]
REPOSITORY = address.Address("Ada", "notes")


@cache
def maker(kind: str) -> plain.Plain:
    return plain.Plain(kind)


@cache
def copy_of(page: numbering.Page, kind: str) -> nbformat.NotebookNode:
    """To be read, not to be changed."""
    return maker(kind).notebook(page)


def leftovers(text: str) -> list[str]:
    """What only MyST understands."""
    tokens = numbering.MARKDOWN.parse(text)
    kinds = ("math_block_label", "colon_fence", "amsmath", "myst_target", "myst_line_comment")
    found = [token.type for token in tokens if token.type in kinds]
    found += [token.info for token in tokens if token.type == "fence" and token.info.startswith("{")]
    prose = "\n".join(
        child.content
        for token in tokens
        for child in token.children or []
        if child.type not in ("code_inline", "math_inline", "math_inline_double")
    )
    return (
        found + re.findall(r"\(eq-[\w-]+\)|```\{", text) + re.findall(r"\{[\w:+-]+\}$", prose, re.MULTILINE)
    )


def texts(nb) -> list[str]:
    return [cell.source for cell in nb.cells if cell.cell_type == "markdown"]


def code(nb) -> list:
    return [cell for cell in nb.cells if cell.cell_type == "code"]


# Every chapter


@pytest.mark.parametrize("kind", plain.PLACES)
@pytest.mark.parametrize("page", NOTEBOOKS, ids=lambda page: page.name)
def test_nothing_is_left_that_jupyter_cannot_show(page, kind):
    nb = copy_of(page, kind)
    nbformat.validate(nb)
    assert [left for text in texts(nb) for left in leftovers(text)] == []
    assert not any("mystnb" in cell.metadata for cell in nb.cells)
    assert len({cell.id for cell in nb.cells}) == len(nb.cells)


@pytest.mark.parametrize("page", NOTEBOOKS, ids=lambda page: page.name)
def test_code_keeps_its_order_and_its_content_but_for_the_titles_of_forms(page):
    source = [cell.source for cell in code(chapters.read(page.path))]
    assert [cell.source for cell in code(copy_of(page, "lab"))] == source
    for kind in ("colab", "download"):
        made = [re.sub(r"\A#@title .*\n", "", cell.source) for cell in code(copy_of(page, kind))]
        assert made == source


@pytest.mark.parametrize("page", NOTEBOOKS, ids=lambda page: page.name)
def test_what_the_page_folds_is_folded(page):
    source = chapters.read(page.path)
    nb = copy_of(page, "colab")
    hidden = [cell.id for cell in code(source) if "hide-input" in chapters.tags(cell)]
    solved = solution_cells(source)
    made = {cell.id: cell for cell in code(nb)}
    folded = {name for name, cell in made.items() if cell.metadata.get("jupyter", {}).get("source_hidden")}
    assert folded == {*hidden, *solved}
    for name in folded:
        assert made[name].metadata["cellView"] == "form" and made[name].source.startswith("#@title ")
    assert all(made[name].metadata["jupyter"]["outputs_hidden"] for name in solved)

    def folds(nb, pattern):
        return sum(len(re.findall(pattern, text)) for text in texts(nb))

    written = "\n".join(texts(source))
    dropdowns = len(re.findall(r"^```+\{admonition\}.*\n(?::.*\n)*?:class:.*dropdown", written, re.MULTILINE))
    assert folds(nb, "<details>") == folds(nb, "</details>") >= dropdowns + written.count("{solution-start}")
    assert folds(nb, "<b>Our answer</b>") == written.count("{admonition} Our answer")
    for text in texts(nb):
        open_text = re.sub(r"<details>.*?</details>", "", text, flags=re.DOTALL)
        assert "Our answer" not in open_text and "Solution to" not in open_text
        # a formula in a fold is found only between blank lines
        for fold in re.findall(r"<details>\n(.*?)</details>", text, re.DOTALL):
            assert re.fullmatch(r"<summary><b>.*</b></summary>\n\n(?s:.*)\n\n", fold)


def solution_cells(nb) -> list[str]:
    """Code between the start and the end of a solution."""
    found, within = [], False
    for cell in nb.cells:
        if cell.cell_type == "code" and within:
            found.append(cell.id)
        for name in re.findall(r"\{solution-(start|end)\}", cell.source):
            within = name == "start"
    return found


@pytest.mark.parametrize("page", NOTEBOOKS, ids=lambda page: page.name)
def test_numbers_run_through_a_chapter(page):
    """That they are those of the page, tests/site/test_numbers.py says."""
    text = "\n".join(texts(copy_of(page, "lab")))
    patterns = {
        "equation": r"\\tag\{(.*?)\}",
        "figure": r"^\*\*Figure (\S+)\.\*\*",
        "exercise": r"^> \*\*Exercise (\S+)",
    }
    for kind, pattern in patterns.items():
        labels = [label for label in BOOK.labels.values() if label.page == page.name and label.kind == kind]
        printed = re.findall(pattern, text, re.MULTILINE)
        assert printed == [label.number for label in labels]
        assert printed == [f"{page.number}.{count}" for count in range(1, len(labels) + 1)]
    assert text.startswith(f"# {page.number}{numbering.SPACE}")


@pytest.mark.parametrize("page", NOTEBOOKS, ids=lambda page: page.name)
def test_links_lead_to_what_is_there(page):
    heads = {each.path.name: headings(each) for each in [*NOTEBOOKS, *TEXTS]}
    for text in texts(copy_of(page, "lab")):
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            file, _, fragment = target.partition("#")
            if "://" not in target:
                assert file in heads, target
                assert not fragment or fragment in heads[file], target
    for kind in ("colab", "download"):
        for text in texts(copy_of(page, kind)):
            assert not re.search(r"\]\((?!https?://|mailto:)", re.sub(r"\$[^$]*\$|`[^`]*`", "", text))


@cache
def headings(page: numbering.Page) -> set[str]:
    """As JupyterLab names them."""
    text = "\n".join(texts(copy_of(page, "lab"))) if page.is_notebook else maker("lab").text(page)
    return {head.replace(" ", "-") for head in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.name)
def test_pages_without_code_come_in_plain_form_too(page):
    assert leftovers(maker("lab").text(page)) == []


# Every piece of MyST

TOC = """root: book/index
parts:
  - caption: Start
    chapters: [{file: book/how}]
  - caption: One
    numbered: 1
    chapters: [{file: book/01_a}, {file: book/02_b}]
  - caption: Back
    numbered: 1
    style: alphaupper
    chapters: [{file: book/words}, {file: book/reference}]
"""
BIB = """@misc{ho, author = {Ho, Jonathan and Jain, Ajay and Abbeel, Pieter}, title = {Denoising}, year = {2020},
 eprint = {2006.11239}, archivePrefix = {arXiv}}
@misc{chen, author = {Chen, Ting}, title = {Noise}, year = {2023}, doi = {10.1/x}}
@misc{krizhevsky, author = {Krizhevsky, Alex and Hinton, Geoffrey}, title = {Layers}, year = {2009}}
"""


@pytest.fixture
def world(tmp_path):
    """world(*cells, kind) -> the plain form of a second chapter with these cells; text is Markdown, a cell is itself."""
    folder = tmp_path / "book"
    folder.mkdir()
    (tmp_path / "_toc.yml").write_text(TOC)
    (folder / "references.bib").write_text(BIB)
    (folder / "index.md").write_text("# Start\n")
    (folder / "how.md").write_text("# How\n\n(marking)=\n## How it marks\n")
    (folder / "reference.md").write_text("# The library\n")
    (folder / "words.md").write_text("# Words\n\n$$e = 1$$ (eq-e)\n")
    first = new_notebook(
        cells=[new_markdown_cell("# First\n\n$$a = 1$$ (eq-a)\n\n```{exercise} Try\n:label: ex-a\nDo.\n```")]
    )
    nbformat.write(first, folder / "01_a.ipynb")

    def converted(*cells, kind="lab"):
        made = [
            new_markdown_cell(cell, id=f"c{n}") if isinstance(cell, str) else cell
            for n, cell in enumerate(cells)
        ]
        path = folder / "02_b.ipynb"
        path.write_text(
            nbformat.writes(new_notebook(cells=[new_markdown_cell("# Second", id="title"), *made]))
        )
        made_by = plain.Plain(kind, tmp_path, REPOSITORY)
        return made_by.notebook(made_by.book.pages["02_b"])

    return converted


SITE = "https://ada.github.io/notes/book/"
CASES = {
    "an equation": ("$$\nx = 1\n+ 2\n$$ (eq-x)\n\nBy {eq}`eq-x`.", "$$ x = 1 + 2 \\tag{2.1} $$\n\nBy (2.1)."),
    "a formula without a number": ("$$\nx\n$$", "$$ x $$"),
    "an equation as a directive": ("```{math}\n:label: eq-x\nx\n```", "$$ x \\tag{2.1} $$"),
    "an equation elsewhere": ("By {eq}`eq-a`, {eq}`eq-e`.", "By [(1.1)](01_a.ipynb), [(A.1)](words.md)."),
    "a fold": (
        "Guess.\n:::{admonition} Why `a` < $b_k$\n:class: dropdown\nBy {eq}`eq-a`:\n\n$$\na\n$$\n:::\nGo on.",
        "Guess.\n\n<details>\n<summary><b>Why <code>a</code> &lt; $b_k$</b></summary>\n\nBy [(1.1)](01_a.ipynb):\n\n$$ a $$\n\n</details>\n\nGo on.",
    ),
    "a note": ("```{note}\nMind $$a$$.\n```", "> **Note**\n>\n> Mind $$a$$."),
    "a box": (
        "```{admonition} What it *stands* on\n:class: stands-on\n- one\n\n$$\na\nb\n$$\n```",
        "> **What it *stands* on**\n>\n> - one\n>\n> $$ a b $$",
    ),
    "a box within a box": (
        "````{note}\nA.\n```{admonition} Hint\n:class: dropdown\nB.\n```\n````",
        "> **Note**\n>\n> A.\n>\n> <details>\n> <summary><b>Hint</b></summary>\n>\n> B.\n>\n> </details>",
    ),
    "an exercise": (
        ":::{exercise} A `b`\n:label: ex-b\n\nDo it.\n:::\n\nSee {ref}`ex-b`, {ref}`ex-a`.",
        "> **Exercise 2.1 (A `b`)**\n>\n> Do it.\n\nSee Exercise 2.1, [Exercise 1.1](01_a.ipynb).",
    ),
    "citations": (
        "{cite:t}`ho` and {cite:p}`ho,chen`; {cite:t}`krizhevsky`.",
        "[Ho et al. (2020)](https://arxiv.org/abs/2006.11239) and ([Chen, 2023](https://doi.org/10.1/x); "
        "[Ho et al., 2020](https://arxiv.org/abs/2006.11239)); Krizhevsky and Hinton (2009).",
    ),
    "chapters that are named": (
        "In chapter 1 and\nchapters 1, 2 to 3. `chapter 1` $chapter 1$ [chapter 1](how.md)",
        "In [chapter 1](01_a.ipynb) and\n[chapters 1](01_a.ipynb), 2 to 3. `chapter 1` $chapter 1$ [chapter 1](how.md)",
    ),
    "no link in a heading": ("## As in chapter 1", "## As in chapter 1"),
    "links": (
        "[to `it`](how.md) [place](how.md#marking) [label](marking) [](01_a.ipynb) [out](https://a.b/c_(d)) {doc}`how`",
        "[to `it`](how.md) [place](how.md#How-it-marks) [label](how.md#How-it-marks) "
        "[1\u2002First](01_a.ipynb) [out](https://a.b/c_(d)) [How](how.md)",
    ),
    "code and formulas stay": (
        "`{eq}` `` {eq}`eq-a` `` $\\{a\\}`b`$ \\[x](y)\n\n```python\n{eq}`eq-a` chapter 1\n```",
        "`{eq}` `` {eq}`eq-a` `` $\\{a\\}`b`$ \\[x](y)\n\n```python\n{eq}`eq-a` chapter 1\n```",
    ),
    "other roles": (
        "{py:func}`a.b` {math}`x` {kbd}`q` {download}`f.json`",
        f"[`a.b()`]({SITE}reference.html#a.b) $x$ `q` `f.json`",
    ),
    "what is not shown": ("(here)=\n% a comment\n\n+++\n\nText[^1]", "Text[^1]"),
    "attributes": ("[a](how.md){.button} `b`{l=python} {c}", "[a](how.md) `b` {c}"),
    "in a list": ("- one\n\n  ```{note}\n  Two.\n  ```\n- three", "- one\n\n  > **Note**\n  >\n  > Two.\n\n- three"),
    "in a table": ("| a | b |\n| --- | --- |\n| {eq}`eq-a` | chapter 1 |", "| a | b |\n| --- | --- |\n| [(1.1)](01_a.ipynb) | [chapter 1](01_a.ipynb) |"),
    "a wrapper": (":::{live-model} whole\n\nOn the page.\n\n:::", "On the page."),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_myst_becomes_plain_text(world, case):
    written, expected = CASES[case]
    assert texts(world(written))[1:] == [expected]


def test_links_lead_where_the_copy_lies(world):
    text = "[a](01_a.ipynb) [b](words.md) [c](marking) {eq}`eq-a` ![p](images/p.png)"
    colab = "https://colab.research.google.com/github/Ada/notes/blob/colab/book/01_a.ipynb"
    picture = "![p](https://raw.githubusercontent.com/Ada/notes/main/book/images/p.png)"
    rest = (
        f"[b]({SITE}words.html) [c]({SITE}how.html#marking) [(1.1)]({SITE}01_a.html#equation-eq-a) {picture}"
    )
    assert texts(world(text, kind="colab"))[1] == f"[a]({colab}) {rest}"
    assert texts(world(text, kind="download"))[1] == f"[a]({SITE}01_a.html) {rest}"


def drawn(source: str, name: str, *tags: str, html: bool = False):
    data = {"image/png": "aGk="} | ({"text/html": "<b>"} if html else {})
    figure = {"figure": {"caption": "As in {eq}`eq-a`.", "name": name}}
    return new_code_cell(
        source,
        id=name,
        metadata={"tags": list(tags), "mystnb": figure},
        outputs=[new_output("display_data", data)],
        execution_count=1,
    )


def test_figures_have_their_captions_below_and_folded_code_a_title(world):
    nb = world(
        drawn("a", "fig-a", "hide-input"),
        "{numref}`fig-b`",
        drawn("b", "fig-b"),
        drawn("c", "fig-c", html=True),
        drawn("d", "fig-d", "remove-output"),
        new_code_cell("e", id="e", metadata={"tags": ["hide-input"]}),
        new_code_cell("%%time\nf", id="f", metadata={"tags": ["remove-cell"]}),
        kind="colab",
    )
    link = f"[(1.1)]({SITE}01_a.html#equation-eq-a)"
    assert [cell.source for cell in nb.cells[1:]] == [
        "#@title Code of Figure 2.1\na",
        f"**Figure 2.1.** As in {link}.",
        "Figure 2.2",
        "b",
        f"**Figure 2.2.** As in {link}.",
        "c",
        "d",
        "#@title Code\ne",
        "%%time\nf",
    ]
    cells = {cell.id: cell for cell in nb.cells}
    assert cells["fig-a"].metadata == {"tags": ["hide-input"], "jupyter": {"source_hidden": True}, "cellView": "form"}  # fmt: skip
    assert cells["fig-a"].outputs and not cells["fig-d"].outputs and cells["fig-d"].execution_count is None
    assert cells["f"].metadata["jupyter"] == {"source_hidden": True, "outputs_hidden": True}
    assert "jupyter" not in cells["fig-b"].metadata


def test_a_solution_goes_on_over_several_cells(world):
    nb = world(
        "```{solution-start} ex-a\n:class: dropdown\n```\nFirst.",
        new_code_cell("a = 1", id="in"),
        "Second.",
        "Third.\n```{solution-end}\n```\nAfter it.",
        "```{solution-start} ex-a\n```",
        new_code_cell("b = 1", id="alone"),
        "```{solution-end}\n```",
        new_code_cell("c = 1", id="out"),
    )
    fold = "<details>\n<summary><b>Solution to Exercise 1.1 (Try){}</b></summary>\n\n{}\n\n</details>"
    assert [cell.source for cell in nb.cells[1:]] == [
        fold.format("", "First."),
        "a = 1",
        fold.format(", continued", "Second."),
        fold.format(", continued", "Third.") + "\n\nAfter it.",
        "b = 1",
        "c = 1",
    ]
    hidden = {cell.id: "jupyter" in cell.metadata for cell in code(nb)}
    assert hidden == {"in": True, "alone": True, "out": False}


def test_a_section_off_the_core_path_says_what_it_costs(world):
    long = "word " * 3 * reading.WORDS_A_MINUTE
    nb = world(f"## Deeper: $a$\n\n{long}", f"### Within\n\n{long}", "## Core", "### Deeper: b\n\nshort")
    assert "## Deeper: $a$\n\n*Off the core path, about 6 min*" in texts(nb)[1]
    assert "### Deeper: b\n\n*Off the core path, about 1 min*" in texts(nb)[4]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{nothing}`x`", "nothing is known of a role {nothing}"),
        ("```{nothing} x\n```", "nothing is known of a directive {nothing}"),
        ("{eq}`eq-none`", "nothing in the book has the label eq-none"),
        ("{cite:p}`ho,none`", "references.bib has no none"),
        ("[a](none.ipynb)", "a link leads to none.ipynb"),
        ("{doc}`none`", "{doc} names none"),
        ("\\begin{align}\na\n\\end{align}", "put it between $$ and $$"),
    ],
)
def test_what_is_not_known_is_named_with_its_place(world, text, said):
    with pytest.raises(plain.PlainError, match=f"^02_b.ipynb, cell c1: .*{re.escape(said)}"):
        world("First.", text)


def test_a_page_without_code(world, tmp_path):
    world("")
    (tmp_path / "licence.txt").write_text("Free.\n")
    (tmp_path / "book" / "how.md").write_text(
        "# How\n\n(marking)=\n## How\n\n```{figure} images/a.png\n:name: fig-a\n:alt: A picture.\nBy {eq}`eq-a`.\n```\n"
        "```{literalinclude} ../licence.txt\n:language: text\n```\n"
        "```{glossary}\nnoise\n  What hides. In chapter 1.\n```\n```{bibliography}\n```\n"
    )
    made_by = plain.Plain("lab", tmp_path, REPOSITORY)
    made = made_by.text(made_by.book.pages["how"])
    assert "![A picture.](images/a.png)\n\n**Figure 1.** By [(1.1)](01_a.ipynb)." in made
    assert "```text\nFree.\n```" in made and "**noise.** What hides. In [chapter 1](01_a.ipynb)." in made
    names = [re.search("Chen|Ho|Krizhevsky", line)[0] for line in made.splitlines()[-3:]]
    assert names == ["Chen", "Ho", "Krizhevsky"]


# What is counted


def test_chapters_carry_the_number_in_the_name_of_their_file_and_appendices_a_letter():
    for number, page in BOOK.chapters.items():
        assert page.name.startswith(f"{number:02}_")
    letters = [page.number for page in BOOK.pages.values() if page.number and not page.number.isdigit()]
    assert letters == [chr(ord("A") + place) for place in range(len(letters))]
    numbers = [page.number for page in BOOK.pages.values() if page.number]
    assert len(set(numbers)) == len(numbers)


def test_how_a_text_names_chapters():
    text = "Chapter 1, (chapters 2, 13 and 4), chapters 6 to\n10; chapter 3, 5 more; chapters 7, or 8. Chapter one. subchapter 3, whole chapter 90 min"
    found = [(text[start:end], number) for start, end, number in numbering.mentions(text)]
    assert found == [
        ("Chapter 1", 1),
        ("chapters 2", 2),
        ("13", 13),
        ("4", 4),
        ("chapters 6", 6),
        ("10", 10),
        ("chapter 3", 3),
        ("chapters 7", 7),
        ("8", 8),
    ]


def test_a_label_may_stand_once_and_a_page_must_be_there(world, tmp_path):
    with pytest.raises(ValueError, match="02_b.ipynb: the label eq-a stands on 01_a too"):
        world("$$x$$ (eq-a)\n\n{eq}`eq-a`")
    (tmp_path / "book" / "how.md").unlink()
    with pytest.raises(FileNotFoundError, match="book/how"):
        numbering.Book(tmp_path)


# In use


def test_a_plain_notebook_runs(world, tmp_path):
    nb = world(
        new_code_cell("x = 3", id="a", metadata={"tags": ["hide-input"]}),
        "```{solution-start} ex-a\n```\n",
        new_code_cell("print(x ** 2)", id="b"),
        "```{solution-end}\n```",
        kind="colab",
    )
    chapters.execute(nb, tmp_path)
    assert code(nb)[1].outputs[0].text == "9\n"


def test_the_command_writes_the_branch(tmp_path):
    tool, page = Path(plain.__file__), NOTEBOOKS[-1]
    command = [sys.executable, tool, "colab", tmp_path / "out", page.path]
    subprocess.run(command, check=True)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [page.path.name]
    assert (tmp_path / "out" / page.path.name).read_bytes() == plain.Plain("colab").bytes_of(page)
    with pytest.raises(plain.PlainError, match="no notebook of the book: .*conftest.py"):
        plain.write([Path(__file__).parents[1] / "conftest.py"], "colab", tmp_path)


# In JupyterLab

OPEN = """async path => {
  const kernel = {shouldStart: false, canStart: false, autoStartDefault: false}
  const widget = await jupyterapp.commands.execute('docmanager:open', {path, factory: 'Notebook', kernel})
  await widget.revealed
  await widget.context.ready
  const cells = widget.content.widgets.filter(cell => cell.model.type === 'markdown')
  const shown = cell => cell.node.querySelector('.jp-RenderedMarkdown')
  const text = () => cells.map(cell => {
    const copy = shown(cell).cloneNode(true)
    copy.querySelectorAll('mjx-container, code, pre').forEach(part => part.remove())
    return copy.textContent
  }).join('\\n')
  const ready = () => cells.every(cell => cell.rendered && shown(cell)?.childNodes.length) && !text().includes('$')
  for (const begun = Date.now(); !ready() && Date.now() - begun < 60_000;) await new Promise(next => setTimeout(next, 100))
  const count = selector => widget.node.querySelectorAll(selector).length
  const found = {
    details: count('details'),
    open: count('details[open]'),
    numbers: count('mjx-mlabeledtr'),
    faults: count('mjx-merror, [data-mjx-error]'),
    hidden: count('.jp-InputPlaceholder'),
    text: text(),
  }
  await jupyterapp.commands.execute('application:close-all')
  return found
}"""


@pytest.fixture(scope="module")
def lab(browser, tmp_path_factory):
    """A page of a JupyterLab that has the chapters, without outputs and without code that the reader sees."""
    pytest.importorskip("jupyterlab", reason="JupyterLab is not installed: make install")
    folder, state = tmp_path_factory.mktemp("mine"), tmp_path_factory.mktemp("lab")
    for page in NOTEBOOKS:
        nb = deepcopy(copy_of(page, "lab"))
        nb.cells = [cell for cell in nb.cells if cell.cell_type == "markdown" or "jupyter" in cell.metadata]
        for cell in code(nb):
            cell.outputs = []
        nbformat.write(nb, folder / page.path.name)
    # otherwise it draws only the cells that are in view
    settings = state / "settings" / "@jupyterlab" / "notebook-extension" / "tracker.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps({"windowingMode": "none"}))
    places = {"JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces"}
    places |= {f"JUPYTER_{kind}_DIR": kind.lower() for kind in ("CONFIG", "RUNTIME", "DATA")}
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--port=0"),
        *("--IdentityProvider.token=", "--LabApp.expose_app_in_browser=True", f"--notebook-dir={folder}"),
    ]
    env = os.environ | {name: str(state / place) for name, place in places.items()}
    server = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True, cwd=tempfile.gettempdir())
    try:
        found = (re.search(r"http://(?:localhost|127\.0\.0\.1):(\d+)/lab", line) for line in server.stderr)
        port = next(filter(None, found))[1]
        threading.Thread(target=server.stderr.read, daemon=True).start()
        page = browser.new_page()
        page.set_default_timeout(180_000)
        page.goto(f"http://127.0.0.1:{port}/lab?reset", wait_until="domcontentloaded")
        page.wait_for_function("window.jupyterapp?.commands.hasCommand('docmanager:open')")
        page.evaluate("jupyterapp.restored.then(() => null)")
        yield page
        page.close()
    finally:
        server.terminate()
        server.wait()


@pytest.mark.slow
@pytest.mark.parametrize("page", NOTEBOOKS, ids=lambda page: page.name)
def test_jupyterlab_shows_what_the_page_shows(lab, page):
    nb = copy_of(page, "lab")
    written = "\n".join(texts(nb))
    found = lab.evaluate(OPEN, page.path.name)
    text = found.pop("text")
    assert found == {
        "details": written.count("<details>"),
        "open": 0,
        "numbers": written.count(r"\tag{"),
        "faults": 0,
        "hidden": sum("source_hidden" in cell.metadata.get("jupyter", {}) for cell in nb.cells),
    }
    raw = [line for line in text.split("\n") if re.search(r"[$\\]|\*\*|\]\(|\{[\w:]+\}|\(eq-", line)]
    assert raw == []
