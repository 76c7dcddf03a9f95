"""What the download button of a chapter gives: the notebook as plain Jupyter shows it, without MyST."""

from __future__ import annotations

import sys
from pathlib import Path

from sphinx.application import Sphinx

from ddpm_lib.files import write_whole

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import plain  # noqa: E402


def write_downloads(app: Sphinx, error: Exception | None) -> None:
    """Sphinx has put the sources there. Raises PlainError for what no plain notebook can show."""
    if error or app.builder.format != "html":
        return
    made = plain.Plain("download", Path(app.srcdir))
    for page in made.book.pages.values():
        target = Path(app.outdir, "_sources", "book", page.path.name)
        if page.is_notebook and target.exists():
            content = made.bytes_of(page)
            write_whole(
                target,
                lambda part, content=content: Path(part).write_bytes(content),
            )


def setup(app: Sphinx) -> dict:
    app.connect("build-finished", write_downloads)
    return {
        "version": "1",
        "parallel_read_safe": True,
        "parallel_write_safe": True,
    }
