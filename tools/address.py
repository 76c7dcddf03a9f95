"""The address of the repository, read from one place and written wherever it is needed.

    python tools/address.py          print it
    python tools/address.py stamp    write it into the chapters, the README and the other files that name it
    python tools/address.py check    say which file disagrees with pyproject.toml; exit code 1 if one does

It stands in pyproject.toml under [project.urls]. GITHUB_REPOSITORY (owner/name), which GitHub sets in
its workflows, overrides it for printing and stamping: a fork publishes its own book with no edit.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLACEHOLDER_OWNER = "your_name"  # no GitHub user name has an underscore
PLACES = ("pyproject.toml", "*.md", "*.cff", "LICENSE-book", "_config.yml", "book/*.md", "book/*.ipynb")

_NAME = r"[A-Za-z0-9._-]*[A-Za-z0-9_-]"
_ADDRESS = re.compile(rf"https://github\.com/({_NAME})/({_NAME}?)(?:\.git)?/?")
_INSTALL = re.compile(rf'(ddpm-lib(?:\[[a-z,]+\])? @ git\+)https://github\.com/{_NAME}/{_NAME}(?=\\?")')


@dataclass(frozen=True)
class Address:
    """A repository on GitHub and what follows from it."""

    owner: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Address:
        """From https://github.com/owner/name."""
        match = _ADDRESS.fullmatch(text)
        if not match or not match[2]:
            raise ValueError(f"{text!r} is no repository address: expected https://github.com/owner/name")
        return cls(match[1], match[2])

    @property
    def slug(self) -> str:
        return f"{self.owner}/{self.name}"

    @property
    def url(self) -> str:
        return f"https://github.com/{self.slug}"

    @property
    def pages(self) -> str:
        """Where GitHub Pages serves the book."""
        host = f"{self.owner.lower()}.github.io"
        return f"https://{host}/" if self.name.lower() == host else f"https://{host}/{self.name}/"

    @property
    def is_placeholder(self) -> bool:
        return self.owner == PLACEHOLDER_OWNER


def committed(root: Path = ROOT) -> Address:
    """The address in pyproject.toml."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return Address.parse(project["urls"]["Repository"])


def current(root: Path = ROOT, environ: Mapping[str, str] = os.environ) -> Address:
    """The address that counts here: GITHUB_REPOSITORY, else the one in pyproject.toml."""
    slug = environ.get("GITHUB_REPOSITORY")
    return Address.parse(f"https://github.com/{slug}") if slug else committed(root)


def stamped(text: str, old: Address, new: Address) -> str:
    """`text` with the old address, in each of its forms, and every install cell turned to the new one."""
    text = _INSTALL.sub(lambda match: match[1] + new.url, text)
    for before in (old, Address(PLACEHOLDER_OWNER, old.name)):
        # github.com/owner/name, raw.githubusercontent.com/owner/name, colab's .../github/owner/name
        slug = rf"(github(?:usercontent)?(?:\.com)?[/:]){re.escape(before.slug)}(?![\w-])"
        text = re.sub(slug, lambda match: match[1] + new.slug, text)
        text = re.sub(re.escape(before.pages.rstrip("/")) + r"(?![\w.-])", new.pages.rstrip("/"), text)
    return text


def places(root: Path = ROOT) -> list[Path]:
    """The files that may name the address."""
    return sorted(path for pattern in PLACES for path in root.glob(pattern))


def stamp(root: Path, new: Address) -> list[Path]:
    """Write the new address everywhere; the files that changed."""
    old, changed = committed(root), []
    for path in places(root):
        before = path.read_bytes().decode("utf-8")
        after = stamped(before, old, new)
        if after != before:
            path.write_bytes(after.encode("utf-8"))
            changed.append(path)
    return changed


def disagreements(root: Path = ROOT) -> list[str]:
    """One line for each file whose address is not the one in pyproject.toml."""
    address = committed(root)
    found = []
    for path in places(root):
        text = path.read_text(encoding="utf-8")
        name = path.relative_to(root)
        if stamped(text, address, address) != text:
            found.append(
                f"{name}: names another address than {address.url} (run: python tools/address.py stamp)"
            )
        if path.suffix == ".ipynb" and not _INSTALL.search(text):
            found.append(
                f'{name}: its first cell does not install "ddpm-lib[plot] @ git+{address.url}" on Colab'
            )
    return found


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", nargs="?", choices=("print", "stamp", "check"), default="print")
    action = parser.parse_args(argv).action
    try:
        address = committed() if action == "check" else current()
    except (ValueError, KeyError) as error:
        print(f"tools/address.py: {error}", file=sys.stderr)
        return 2
    if action == "check":
        found = disagreements()
        print("\n".join(found) or f"{address.url}: all files agree")
        return 1 if found else 0
    if action == "stamp":
        for path in stamp(ROOT, address):
            print(f"stamped {path.relative_to(ROOT)}")
    print(address.url)
    return 0


if __name__ == "__main__":
    sys.exit(main())
