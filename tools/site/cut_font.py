"""Cuts the font of the book's formulas out of a whole mathematical font.

    pip install brotli
    python tools/site/cut_font.py texgyretermes-math.otf

TeX Gyre Termes Math 1.543 by Bogusław Jackowski, Piotr Strzelczyk and Piotr Pianowski, GUST Font License; Debian has
it in the package fonts-texgyre-math. What is cut has a name of its own, as the licence asks of a changed font.

Two things are changed, because browsers set formulas without two rules of TeX:

- A prime is a power to them, and the font's own prime is small and high already. They get the large, low one that the font has
  for powers.
- A power or an index moves away from a base that is tall or deep, so that the t of beta would hang below the t of alpha. TeX makes
  an exception for single letters; the font's drops are set so that no letter is tall or deep enough.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from fontTools.subset import Options, Subsetter
from fontTools.ttLib import TTFont

ROOT = Path(__file__).resolve().parents[2]
FONT = ROOT / "book" / "_static" / "book-math.woff2"
NAME = "Book Math"
# Letters upright, italic, bold, script and double-struck, Greek, and the signs of analysis and probability.
KEPT = (
    (0x20, 0x7E),
    (0xA0, 0xA0),
    (0xA8, 0xB7),
    (0xD7, 0xD7),
    (0xF7, 0xF7),
    (0x131, 0x131),
    (0x237, 0x237),
    (0x2C6, 0x2DC),
    (0x300, 0x30C),
    (0x338, 0x338),
    (0x391, 0x3F6),
    (0x2010, 0x2033),
    (0x2061, 0x2064),
    (0x20D7, 0x20D7),
    (0x2102, 0x2135),
    (0x2190, 0x2199),
    (0x21A6, 0x21A6),
    (0x21D0, 0x21D4),
    (0x2200, 0x223C),
    (0x2240, 0x228B),
    (0x2295, 0x22A5),
    (0x22C0, 0x22C6),
    (0x22EE, 0x22F1),
    (0x2308, 0x230B),
    (0x23DE, 0x23DF),
    (0x27E8, 0x27E9),
    (0x27F5, 0x27FA),
    (0x2A7D, 0x2A7E),
    (0x1D400, 0x1D467),
    (0x1D49C, 0x1D4B5),
    (0x1D538, 0x1D550),
    (0x1D6FC, 0x1D71B),
)


PRIMES = (0x2032, 0x2033, 0x2034)
# In thousandths of the size. The first is TeX's own; the second leaves the index of a fence near its foot.
DROPS = {"SuperscriptBaselineDropMax": 386, "SubscriptBaselineDropMin": -30}


def mend(font: TTFont) -> None:
    """Primes and drops as browsers need them, see above. Raises ValueError if the font has no primes for powers."""
    powers = {
        small: large[0]
        for lookup in font["GSUB"].table.LookupList.Lookup
        for table in lookup.SubTable
        for small, large in getattr(table, "alternates", {}).items()
    }
    glyphs = font.getBestCmap()
    if lacking := [f"U+{code:04X}" for code in PRIMES if glyphs.get(code) not in powers]:
        raise ValueError(f"the font has no form for powers of {', '.join(lacking)}")
    large = {code: powers[glyphs[code]] for code in PRIMES}
    for table in font["cmap"].tables:
        table.cmap.update({code: glyph for code, glyph in large.items() if code in table.cmap})
    for name, value in DROPS.items():
        getattr(font["MATH"].table.MathConstants, name).Value = value


def cut(source: str, target: Path) -> int:
    """Write the part of the font that formulas use, as woff2; its size in bytes."""
    font = TTFont(source)
    mend(font)
    options = Options(flavor="woff2", hinting=False, desubroutinize=True, notdef_outline=True)
    options.layout_features = ["ssty", "dtls", "flac"]
    options.name_IDs = [0, 1, 2, 3, 4, 5, 6, 13, 14]
    subsetter = Subsetter(options)
    subsetter.populate(unicodes=[code for first, last in KEPT for code in range(first, last + 1)])
    subsetter.subset(font)
    for record in font["name"].names:
        if record.nameID in (1, 3, 4, 6):
            record.string = NAME.replace(" ", "") if record.nameID == 6 else NAME
    font["CFF "].cff.fontNames = [NAME.replace(" ", "")]
    font.flavor = "woff2"
    part = target.with_name(target.name + ".part")
    font.save(part)
    part.replace(target)
    return target.stat().st_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("font", help="the whole font, an .otf file with a MATH table")
    print(f"{FONT.relative_to(ROOT)}: {cut(parser.parse_args().font, FONT):,} bytes")


if __name__ == "__main__":
    main()
