"""Cuts the font of the book's text out of Source Serif 4, as npm has it in pieces.

    npm pack @fontsource-variable/source-serif-4
    tar xzf fontsource-variable-source-serif-4-*.tgz
    pip install brotli
    python tools/site/cut_text_font.py package/files

Source Serif 4 by Frank Grießhammer for Adobe and Google, SIL Open Font License 1.1. What is cut is called "Book Text", since the licence
reserves the name. Kept are the weights from 400 to 700, and the letters of Western Europe with a few others that names in the references need.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from fontTools.subset import Options, Subsetter
from fontTools.ttLib import TTFont
from fontTools.varLib.instancer import AxisLimits, instantiateVariableFont

ROOT = Path(__file__).resolve().parents[2]
STATIC = ROOT / "book" / "_static"
NAME = "Book Text"
FEW = "ĀāĂăĄąĆćČčĎďĐđĒēĘęĚěĞğĪīİıŁłŃńŇňŌōŐőŘřŚśŞşŠšŤťŪūŮůŰűŹźŻżŽž"


def cut(source: Path, target: Path, letters: str | None = None) -> int:
    """Writes source, a variable font, as woff2 with weights 400 to 700 and only these letters, or all; its bytes."""
    font = TTFont(source)
    options = Options(
        flavor="woff2",
        layout_features=["kern", "liga", "mark", "mkmk", "locl", "ccmp", "lnum", "pnum", "tnum"],
    )
    subsetter = Subsetter(options)
    subsetter.populate(unicodes=font.getBestCmap() if letters is None else map(ord, letters))
    subsetter.subset(font)
    instantiateVariableFont(font, AxisLimits(wght=(400, 400, 700)), inplace=True)
    for record in font["name"].names:
        if record.nameID in (1, 3, 4, 6, 16, 25):
            record.string = NAME.replace(" ", "") if record.nameID == 6 else NAME
    font.flavor = "woff2"
    font.save(target)
    return target.stat().st_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "folder", type=Path, help="with the files source-serif-4-latin-wght-normal.woff2 and so on"
    )
    folder = parser.parse_args().folder
    for style in ("normal", "italic"):
        for piece, letters in (("latin", None), ("latin-ext", FEW)):
            source = folder / f"source-serif-4-{piece}-wght-{style}.woff2"
            name = f"book-text{'-italic' * (style == 'italic')}{'-few' * (letters is not None)}.woff2"
            print(f"{name}: {cut(source, STATIC / name, letters):,} bytes")


if __name__ == "__main__":
    main()
