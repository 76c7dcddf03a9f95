"""The address of the repository stands in one place, and everything that names it follows."""

import json
from pathlib import Path

import address as tool
import pytest

ROOT = Path(__file__).resolve().parents[2]

INSTALL = '    %pip install -q "ddpm-lib[plot] @ git+https://github.com/your_name/ddpm-book"\n'
PLACEHOLDER = "https://github.com/your_name/ddpm-book"


@pytest.fixture
def project(tmp_path):
    (tmp_path / "pyproject.toml").write_text(f'[project]\n[project.urls]\nRepository = "{PLACEHOLDER}"\n')
    (tmp_path / "README.md").write_text(
        f"git clone {PLACEHOLDER}\n"
        f"![tests]({PLACEHOLDER}/actions/workflows/test.yml/badge.svg)\n"
        "[read](https://your_name.github.io/ddpm-book/book/index.html)\n"
        "[colab](https://colab.research.google.com/github/your_name/ddpm-book/blob/colab/book/01.ipynb)\n"
        f"{PLACEHOLDER}-extras is another repository\n"
    )
    (tmp_path / "book").mkdir()
    cells = [{"cell_type": "code", "source": ["try:\n", "    import ddpm_lib\n", INSTALL]}]
    (tmp_path / "book" / "01.ipynb").write_text(json.dumps({"cells": cells}, indent=1))
    return tmp_path


def test_everything_committed_agrees():
    assert tool.disagreements(ROOT) == []


def test_environment_overrides_the_file(project):
    assert tool.current(project, {}).url == PLACEHOLDER
    assert tool.current(project, {}).is_placeholder
    assert tool.current(project, {"GITHUB_REPOSITORY": "ada/noise"}).url == "https://github.com/ada/noise"


def test_stamp_reaches_every_form_and_nothing_else(project):
    new = tool.Address("Ada", "noise.book")
    assert {path.name for path in tool.stamp(project, new)} == {"pyproject.toml", "README.md", "01.ipynb"}
    assert tool.committed(project) == new
    readme = (project / "README.md").read_text()
    assert "git clone https://github.com/Ada/noise.book\n" in readme
    assert "https://github.com/Ada/noise.book/actions/" in readme
    assert "https://ada.github.io/noise.book/book/index.html" in readme
    assert "research.google.com/github/Ada/noise.book/blob/colab/" in readme
    assert f"{PLACEHOLDER}-extras is another" in readme
    source = "".join(json.loads((project / "book" / "01.ipynb").read_text())["cells"][0]["source"])
    assert '"ddpm-lib[plot] @ git+https://github.com/Ada/noise.book"' in source
    assert tool.disagreements(project) == []


def test_stamp_twice_and_back_is_the_identity(project):
    before = {path: path.read_bytes() for path in tool.places(project)}
    tool.stamp(project, tool.Address("ada", "noise"))
    assert tool.stamp(project, tool.Address("ada", "noise")) == []
    tool.stamp(project, tool.Address("your_name", "ddpm-book"))
    assert {path: path.read_bytes() for path in tool.places(project)} == before


def test_check_names_what_disagrees(project):
    other = (project / "book" / "01.ipynb").read_text().replace("your_name", "somebody")
    (project / "book" / "01.ipynb").write_text(other)
    (project / "book" / "02.ipynb").write_text('{"cells": []}')
    found = tool.disagreements(project)
    assert len(found) == 2
    assert found[0].startswith("book/01.ipynb") and found[1].startswith("book/02.ipynb")


def test_a_placeholder_left_behind_disagrees(project):
    tool.stamp(project, tool.Address("ada", "ddpm-book"))
    (project / "README.md").write_text(f"git clone {PLACEHOLDER}\n")
    assert len(tool.disagreements(project)) == 1


@pytest.mark.parametrize(
    ("slug", "pages"),
    [
        ("ada/noise", "https://ada.github.io/noise/"),
        ("Ada/ada.github.io", "https://ada.github.io/"),
    ],
)
def test_pages_address(slug, pages):
    assert tool.Address.parse(f"https://github.com/{slug}").pages == pages


@pytest.mark.parametrize("text", ["", "ada/noise", "https://github.com/ada", "https://example.org/ada/noise"])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ValueError, match="owner/name"):
        tool.Address.parse(text)
