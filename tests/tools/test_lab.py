"""The reader's folder: an update of the book brings what is new, and never takes what the reader made."""

import json
import subprocess
import sys
from pathlib import Path

import lab
import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_notebook, new_output

NAME = "01_a.ipynb"


def notebook(text, output=""):
    outputs = [new_output("stream", name="stdout", text=output)] if output else []
    return nbformat.writes(new_notebook(cells=[new_code_cell(text, id="a", outputs=outputs)])).encode()


@pytest.fixture
def world(tmp_path):
    """The book, with one chapter, and the reader's folder, which is not there yet."""
    book = tmp_path / "book"
    (book / "images").mkdir(parents=True)
    (book / NAME).write_bytes(notebook("version 1", "stored"))
    (book / "notation.md").write_text("page 1")
    (book / "images" / "a.png").write_bytes(b"picture 1")
    return book, tmp_path / "my_work"


def files(mine: Path) -> dict[str, bytes]:
    """What the reader sees in their folder."""
    return {
        str(path.relative_to(mine)): path.read_bytes()
        for path in sorted(mine.rglob("*"))
        if path.is_file() and ".book" not in path.parts
    }


def notebooks(mine: Path) -> dict[str, bytes]:
    return {name: content for name, content in files(mine).items() if name.endswith(".ipynb")}


def test_the_first_time_everything_is_copied(world):
    book, mine = world
    changes = lab.update(*world)
    assert {each.what for each in changes} == {"new"}
    assert files(mine) == files(book)
    assert "your own copies of 1 chapters" in lab.report(changes, mine)


def test_a_second_time_nothing_happens(world):
    lab.update(*world)
    assert lab.update(*world) == [] and lab.report([]) == ""


def test_an_unchanged_copy_follows_the_book_and_leaves_nothing_behind(world):
    book, mine = world
    lab.update(*world)
    (book / NAME).write_bytes(notebook("version 2"))
    (book / "notation.md").write_text("page 2")
    (book / "images" / "a.png").write_bytes(b"picture 2")
    assert {each.what for each in lab.update(*world)} == {"updated"}
    assert files(mine) == files(book)


def test_a_copy_that_was_only_run_makes_room_and_keeps_its_outputs(world):
    book, mine = world
    lab.update(*world)
    run = notebook("version 1", "what the reader's machine printed")
    (mine / NAME).write_bytes(run)
    assert lab.update(*world) == []
    (book / NAME).write_bytes(notebook("version 2"))
    lab.update(*world)
    assert notebooks(mine) == {NAME: notebook("version 2"), "older/01_a.1.ipynb": run}


def test_the_new_version_comes_beside_an_edited_copy(world):
    book, mine = world
    lab.update(*world)
    (mine / NAME).write_bytes(notebook("my answer"))
    (book / NAME).write_bytes(notebook("version 2"))
    changes = lab.update(*world)
    assert notebooks(mine) == {NAME: notebook("my answer"), "01_a.new.ipynb": notebook("version 2")}
    assert "01_a.ipynb: you changed it" in lab.report(changes) and "01_a.new.ipynb" in lab.report(changes)
    assert lab.update(*world) == []

    # the next version takes the place of the one that nobody touched
    (book / NAME).write_bytes(notebook("version 3"))
    lab.update(*world)
    assert notebooks(mine) == {NAME: notebook("my answer"), "01_a.new.ipynb": notebook("version 3")}

    # and comes beside both, if both are the reader's
    (mine / "01_a.new.ipynb").write_bytes(notebook("my second answer"))
    (book / NAME).write_bytes(notebook("version 4"))
    lab.update(*world)
    assert notebooks(mine) == {
        NAME: notebook("my answer"),
        "01_a.new.ipynb": notebook("my second answer"),
        "01_a.new-2.ipynb": notebook("version 4"),
    }


def test_a_deleted_copy_comes_back_fresh_and_a_declined_version_stays_away(world):
    book, mine = world
    lab.update(*world)
    (mine / NAME).unlink()
    lab.update(*world)
    assert notebooks(mine) == {NAME: notebook("version 1", "stored")}

    (mine / NAME).write_bytes(notebook("my answer"))
    (book / NAME).write_bytes(notebook("version 2"))
    lab.update(*world)
    (mine / "01_a.new.ipynb").unlink()
    assert lab.update(*world) == [] and notebooks(mine) == {NAME: notebook("my answer")}


def moved(number: int):
    """What tools/plain.py does to a text: a number from elsewhere in the book stands in it."""
    return lambda path: path.read_bytes().replace(b"version", f"({number}) version".encode())


def test_numbers_that_move_elsewhere_in_the_book_reach_copies_that_nobody_changed(world):
    book, mine = world
    lab.update(*world, moved(1))
    assert lab.update(*world, moved(1)) == []
    assert [each.what for each in lab.update(*world, moved(2))] == ["updated"]
    assert notebooks(mine) == {NAME: notebook("(2) version 1", "stored")}


def test_numbers_that_move_are_no_new_version_of_a_chapter_that_the_reader_changed(world):
    book, mine = world
    lab.update(*world, moved(1))
    (mine / NAME).write_bytes(notebook("my answer"))
    assert lab.update(*world, moved(2)) == [] and notebooks(mine) == {NAME: notebook("my answer")}

    # a chapter that did change comes beside it; declined once, it stays away whatever its numbers are
    (book / NAME).write_bytes(notebook("version 2"))
    assert [each.what for each in lab.update(*world, moved(2))] == ["beside"]
    (mine / "01_a.new.ipynb").unlink()
    for number in (2, 3):
        assert lab.update(*world, moved(number)) == []
    assert notebooks(mine) == {NAME: notebook("my answer")}


def test_copies_that_an_earlier_version_of_the_book_made_follow_it_too(world):
    """It copied chapters as they are, and remembered less."""
    book, mine = world
    (book / "02_b.ipynb").write_bytes(notebook("version 1"))
    lab.update(*world)
    old = {name: kept[:2] for name, kept in memory(mine).items()}
    (mine / lab.MEMORY).write_text(json.dumps(old))
    (mine / NAME).write_bytes(notebook("my answer"))
    lab.update(*world, moved(1))
    assert notebooks(mine) == {
        NAME: notebook("my answer"),
        "01_a.new.ipynb": notebook("(1) version 1", "stored"),
        "02_b.ipynb": notebook("(1) version 1"),
    }


@pytest.mark.parametrize("memory", [None, "", "{", "[]", '{"01_a.ipynb": 3}', '{"01_a.ipynb": "ab"}'])
def test_without_its_memory_it_takes_every_file_for_the_readers(world, memory):
    book, mine = world
    lab.update(*world)
    if memory is None:
        (mine / lab.MEMORY).unlink()
    else:
        (mine / lab.MEMORY).write_text(memory)
    assert lab.update(*world) == []
    (book / NAME).write_bytes(notebook("version 2"))
    (mine / lab.MEMORY).unlink(missing_ok=True)
    lab.update(*world)
    assert notebooks(mine) == {NAME: notebook("version 1", "stored"), "01_a.new.ipynb": notebook("version 2")}


def test_a_file_that_is_no_notebook_any_more_is_the_readers(world):
    book, mine = world
    lab.update(*world)
    (mine / NAME).write_bytes(b"<<<<<<< half a merge")
    (book / NAME).write_bytes(notebook("version 2"))
    lab.update(*world)
    assert notebooks(mine)[NAME] == b"<<<<<<< half a merge"


@pytest.mark.parametrize("stage", ["write", "rename"])
def test_a_copy_that_breaks_off_leaves_no_half_file(world, monkeypatch, stage):
    book, mine = world
    lab.update(*world)
    before = files(mine)
    (book / NAME).write_bytes(notebook("version 2"))

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(lab.os, "fsync" if stage == "write" else "replace", full)
    with pytest.raises(OSError, match="no space"):
        lab.update(*world)
    monkeypatch.undo()
    assert set(files(mine)) <= set(before)  # no hidden part is left either
    lab.update(*world)
    assert notebooks(mine) == {NAME: notebook("version 2")}


TEXTS = st.sampled_from(["version 1", "version 2", "version 3", "my answer", "another answer"])
ACTIONS = st.one_of(
    st.tuples(st.just("book"), TEXTS, st.sampled_from(["", "stored"])),
    st.tuples(st.just("edit"), st.integers(0, 3), TEXTS),
    st.tuples(st.just("run"), st.integers(0, 3), st.sampled_from(["1", "2"])),
    st.tuples(st.just("spoil"), st.integers(0, 3), st.just("half a fi")),
    st.tuples(st.just("delete"), st.integers(0, 3), st.just("")),
    st.tuples(st.just("forget"), st.just(0), st.just("")),
)


@given(steps=st.lists(ACTIONS, max_size=14))
def test_whatever_happens_no_byte_of_the_reader_is_lost(tmp_path_factory, steps):
    book, mine = (tmp_path_factory.mktemp("world") / name for name in ("book", "my_work"))
    book.mkdir()
    (book / NAME).write_bytes(notebook("version 1"))
    lab.update(book, mine)
    for action, where, what in steps:
        theirs = sorted(path for path in mine.glob("*.ipynb"))
        path = theirs[where % len(theirs)] if theirs and action != "book" else None
        if action == "book":
            (book / NAME).write_bytes(notebook(where, what))
        elif action == "forget":
            (mine / lab.MEMORY).unlink(missing_ok=True)
        elif path and action == "edit":
            path.write_bytes(notebook(what))
        elif path and action == "run" and path.read_bytes() != b"half a fi":
            path.write_bytes(notebook(json.loads(path.read_bytes())["cells"][0]["source"], what))
        elif path and action == "spoil":
            path.write_bytes(what.encode())
        elif path and action == "delete":
            path.unlink()
        shipped = {(book / NAME).read_bytes()} | pristine(mine)
        before = {content for content in files(mine).values() if content not in shipped}
        edited = {
            name: content
            for name, content in files(mine).items()
            if not made_by_the_book(mine, name, content)
        }
        lab.update(book, mine)
        after = files(mine)
        assert before <= set(after.values())
        assert {name: after[name] for name in edited} == edited  # and in its place
        assert lab.update(book, mine) == [] and files(mine) == after
        assert any(
            lab.text_of(each) == lab.text_of((book / NAME).read_bytes()) or name in edited
            for name, each in after.items()
        )


def memory(mine):
    path = mine / lab.MEMORY
    return json.loads(path.read_text()) if path.exists() else {}


def pristine(mine):
    """Contents that are, to the byte, what the book put there: git has them."""
    kept = memory(mine)
    return {
        content
        for name, content in files(mine).items()
        if name in kept and lab.hashlib.sha256(content).hexdigest() == kept[name][1]
    }


def made_by_the_book(mine, name, content):
    return name in memory(mine) and memory(mine)[name][0] == lab.text_of(content)


def test_what_a_reader_changes_is_seen_and_what_a_run_changes_is_not():
    cell = new_code_cell("x = 1", id="a")
    text = lab.text_of(nbformat.writes(new_notebook(cells=[cell])).encode())
    ran = new_code_cell(
        "x = 1",
        id="a",
        execution_count=3,
        outputs=[new_output("stream", text="1")],
        metadata={"scrolled": True},
    )
    assert (
        lab.text_of(
            nbformat.writes(
                new_notebook(cells=[ran], metadata={"language_info": {"name": "python"}})
            ).encode()
        )
        == text
    )
    for cells in (
        [],
        [cell, new_code_cell("x = 1", id="b")],
        [new_code_cell("x = 2", id="a")],
        [nbformat.v4.new_raw_cell("x = 1")],
    ):
        assert lab.text_of(nbformat.writes(new_notebook(cells=cells)).encode()) != text


def test_the_command_copies_the_book(tmp_path):
    tool = Path(lab.__file__)
    command = [sys.executable, tool, "--only-copy", "--folder", tmp_path / "mine"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    chapters = sorted(path.name for path in lab.BOOK.glob("*.ipynb"))
    assert f"{len(chapters)} chapters" in said
    assert sorted(path.name for path in (tmp_path / "mine").glob("*.ipynb")) == chapters
    # in plain form, with the pages and pictures that they lead to
    assert "{eq}" not in (tmp_path / "mine" / chapters[0]).read_text()
    beside = {path.name for path in (tmp_path / "mine").glob("*.md")}
    assert "notation.md" in beside and not beside & {f"{name}.md" for name in lab.plain.SITE_ONLY}
    assert (tmp_path / "mine" / "images").is_dir()


def test_a_page_that_cannot_be_copied_is_named(tmp_path, monkeypatch, capsys):
    def wrong():
        raise lab.plain.PlainError("01_a.ipynb, cell x: nothing is known of a role {y}")

    monkeypatch.setattr(lab, "as_plain", wrong)
    assert lab.main(["--only-copy", "--folder", str(tmp_path / "mine")]) == 1
    assert "01_a.ipynb, cell x: nothing is known of a role {y}" in capsys.readouterr().err
