"""Every numbered equation of the book is checked by a test that names it."""

import equations
import nbformat
import pytest


def test_every_numbered_equation_is_checked():
    unchecked = equations.labels().keys() - equations.checks().keys()
    assert not unchecked, f"mark a test with @pytest.mark.equation({', '.join(map(repr, sorted(unchecked)))})"


def test_every_check_is_of_an_equation_that_there_is():
    assert not equations.checks().keys() - equations.labels().keys()


def test_equations_that_are_referred_to_exist():
    known = equations.labels()
    for path in [*(equations.ROOT / "book").glob("*.ipynb"), *(equations.ROOT / "book").glob("*.md")]:
        referred = set(equations.REFERENCE.findall(path.read_text(encoding="utf-8")))
        assert referred <= known.keys(), f"{path.name} refers to {sorted(referred - known.keys())}"


@pytest.fixture
def book(tmp_path):
    """A book of two equations with a test for one of them; a code cell and a plain formula that do not count."""
    (tmp_path / "book").mkdir()
    (tmp_path / "tests").mkdir()
    (tmp_path / "book" / "page.md").write_text("$$ a = b $$ (eq-page)\n\n$$ c $$\n", encoding="utf-8")
    cells = [
        nbformat.v4.new_markdown_cell("```{math}\n:label: eq-cell\na\n```"),
        nbformat.v4.new_code_cell("'$$ x $$ (eq-code)'"),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "book" / "01.ipynb")
    (tmp_path / "tests" / "test_it.py").write_text(
        '@pytest.mark.parametrize("eq-no", [1])\n@pytest.mark.equation("eq-page", "eq-other")\ndef test_a():\n    pass\n'
        '\n\n@pytest.mark.equation("eq-no")\ndef helper():\n    pass\n',
        encoding="utf-8",
    )
    return tmp_path


def test_labels_are_found_on_pages_and_in_chapters(book):
    assert equations.labels(book / "book") == {"eq-page": "page.md", "eq-cell": "01.ipynb"}


def test_checks_are_the_marks_of_tests(book):
    check = equations.Check("tests/test_it.py", "test_a", 3)
    assert equations.checks(book / "tests") == {"eq-page": [check], "eq-other": [check]}


def test_two_equations_of_one_label_are_refused(book):
    (book / "book" / "other.md").write_text("$$ a $$ (eq-page)", encoding="utf-8")
    with pytest.raises(ValueError, match="eq-page is the label of two equations"):
        equations.labels(book / "book")
