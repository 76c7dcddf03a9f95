"""What each page of the built book weighs before its reader scrolls, and how long it takes to load.

    python tools/site/weigh_pages.py                 all pages of _build/html
    python tools/site/weigh_pages.py index notation  some, by name

A local server without compression, headless Chromium with an empty cache for each page, a window of 1300 x 800. Seconds are
those until the page's load event. Exit code 1 if a page is above 1.5 MB or 2 seconds; --seconds 0 only weighs.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter
from pathlib import Path

from headless import chromium, served

HTML = Path(__file__).resolve().parents[2] / "_build" / "html"
BUDGET, SECONDS = 1_500_000, 2.0
# Beside other work a page may be late; it is as fast as its fastest load.
TRIES = 3
KINDS = {"Document": "page", "Stylesheet": "style", "Script": "script", "Font": "font", "Image": "image"}


def weigh(browser, address: str) -> tuple[Counter, float]:
    """Bytes received by kind until half a second after the page has loaded, and the seconds to its load event."""
    context = browser.new_context(viewport={"width": 1300, "height": 800})
    page, kinds, weight = context.new_page(), {}, Counter()
    events = context.new_cdp_session(page)
    events.send("Network.enable")
    events.on("Network.responseReceived", lambda event: kinds.update({event["requestId"]: event["type"]}))
    events.on(
        "Network.loadingFinished",
        lambda event: weight.update(
            {KINDS.get(kinds.get(event["requestId"]), "other"): int(event["encodedDataLength"])}
        ),
    )
    page.goto(address, wait_until="load")
    page.wait_for_timeout(500)
    seconds = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd") / 1000
    context.close()
    return weight, seconds


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pages", nargs="*", help="names of pages, without .html; by default all")
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help="budget of time; 0 for none (default: 2)"
    )
    arguments = parser.parse_args(argv)
    known = {path.stem: path for path in sorted((HTML / "book").glob("*.html"))}
    if not known:
        print(f"no pages in {HTML / 'book'}: make book", file=sys.stderr)
        return 2
    if unknown := [name for name in arguments.pages if name not in known]:
        print(f"no page {', '.join(unknown)}: choose from {', '.join(known)}", file=sys.stderr)
        return 2
    kinds, heavy = [*KINDS.values(), "other"], []
    print(f"{'kB':46}", *(f"{kind:>7}" for kind in kinds), f"{'all':>7} {'s':>6}")
    with served(HTML) as root, chromium() as browser:
        weigh(browser, f"{root}/search.html")  # the first page pays for the browser's own start
        for name in arguments.pages or known:
            seconds = math.inf
            for _ in range(TRIES):
                weight, again = weigh(browser, f"{root}/book/{name}.html")
                seconds = min(seconds, again)
                if seconds < (arguments.seconds or math.inf):
                    break
            row = [weight[kind] / 1e3 for kind in kinds] + [weight.total() / 1e3]
            over = weight.total() > BUDGET or 0 < arguments.seconds < seconds
            print(
                f"{name:46}", *(f"{value:7.0f}" for value in row), f"{seconds:6.2f}", "over" if over else ""
            )
            heavy += [name] if over else []
    if heavy:
        print(f"above {BUDGET / 1e6:g} MB or {arguments.seconds:g} s: {', '.join(heavy)}", file=sys.stderr)
    return 1 if heavy else 0


if __name__ == "__main__":
    sys.exit(main())
