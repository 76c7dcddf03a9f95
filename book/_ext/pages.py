"""Makes the built pages light: interactive figures and pictures are fetched when they come into view, and of the
theme's scripts only those that a page uses.

On a page, a figure is its picture; static/book.js fetches its script, from a file of its own, when a reader
nears it. The notebooks keep each figure whole, as Jupyter, VS Code and Colab need it.
"""

from __future__ import annotations

import base64
import re
import struct
from pathlib import Path
from urllib.parse import unquote

import pydata_sphinx_theme
from docutils import nodes
from fontTools.subset import Options, Subsetter, load_font, save_font
from sphinx.application import Sphinx
from sphinx.util.images import get_image_size

from ddpm_lib.files import write_whole

FIGURE = re.compile(
    r'<figure class="ddpm-figure" data-ddpm-figure="([\w-]+)">.*?</figure>',
    re.S,
)
STILL = re.compile(
    r'<img src="data:image/png;base64,([^"]+)"( alt="[^"]*") style="max-width:100%">'
)
SCRIPT = re.compile(r"<script>(.*?)</script>\n?", re.S)
PICTURE = re.compile(
    r'<img (?=[^>]*src="(?:\.\./)*_images/([^"]+)")(?![^>]*loading=)'
)

# Thebe is for live code, which this book has in Colab; its address is another host's. The book has a search of its own, see
# search_pages.py. The theme's icons come twice: as fonts, and as a script of 1.5 MB.
UNUSED = (
    *("sphinx-thebe", "THEBE_JS_URL", "fontawesome.js"),
    *("searchtools.js", "language_data.js", "searchindex.js"),
)
TAG = re.compile(r"[ \t]*<(?:script|link)\b[^>]*(?:></script>|>)\n?")
SYSTEM = (
    '(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")'
)

ICONS = """angle-left angle-right arrow-up bars circle-half-stroke download expand file file-pdf github lightbulb list
magnifying-glass moon outdent pencil-alt rocket sun xmark""".split()
THEME = (
    Path(pydata_sphinx_theme.__file__).parent
    / "theme/pydata_sphinx_theme/static"
)


def light_page(
    app: Sphinx,
    pagename: str,
    templatename: str,
    context: dict,
    doctree: nodes.document | None,
) -> None:
    context["lean"] = lambda html: lean(html, UNUSED)
    for kind in ("script_files", "css_files"):
        context[kind] = [
            file
            for file in context[kind]
            if not any(name in _told(file) for name in UNUSED)
        ]
    context["script_files"] = list(map(after_the_text, context["script_files"]))
    if "body" in context:
        up = context["content_root"]
        body = FIGURE.sub(
            lambda match: figure_apart(match, Path(app.outdir, "_figures"), up),
            context["body"],
        )
        sources = {name: path for path, name in app.builder.images.items()}
        context["body"] = PICTURE.sub(
            lambda match: sized(match, sources, Path(app.srcdir)), body
        )


def scripts_of_readers(
    app: Sphinx, pagename: str, templatename: str, context: dict, doctree
) -> None:
    """What remembers something for a reader, on the pages that have something to remember."""
    if "Predict first" in context.get("body", ""):
        app.add_css_file("predict.css")
        app.add_js_file("predict.js", loading_method="defer")
    if re.match(r"(\d\d_|index$)", pagename.rpartition("/")[2]):
        app.add_js_file("where.js", loading_method="defer")


def _told(file) -> str:
    """What a script or a style sheet says of itself: its name, and for an inline script its text."""
    return f"{getattr(file, 'filename', file)} {getattr(file, 'attributes', {}).get('body', '')}"


def after_the_text(script):
    """The script, waiting for the end of the page: over a slow connection those in the head would hold the text back.

    Scripts that wait keep their order, and so does one without a file if it is a module. Pages share the one given.
    """
    told = dict(script.attributes)
    if script.filename and "async" not in told:
        told["defer"] = "defer"
    elif told.get("body", "").startswith("DOCUMENTATION_OPTIONS"):
        told["type"] = "module"
    return type(script)(script.filename, priority=script.priority, **told)


def lean(html: str, unused: tuple[str, ...]) -> str:
    """A part of a page's head without what the book does not use."""
    html = TAG.sub(
        lambda match: (
            "" if any(name in match[0] for name in unused) else match[0]
        ),
        html,
    )
    # The theme reports an error for its own empty default, and turns dark only after the page has been drawn light.
    html = html.replace('getItem("mode") || ""', 'getItem("mode") || "auto"')
    return html.replace(
        'getItem("theme") || ""', f'getItem("theme") || {SYSTEM}'
    )


def figure_apart(match: re.Match, folder: Path, up: str) -> str:
    """The figure as its picture, with its script and that picture in files beside the page."""
    key, html = match[1], match[0]
    still, script = STILL.search(html), SCRIPT.search(html)
    if not still or not script:
        raise ValueError(
            f"figure {key} has no picture or no script in it: run its chapter again (make chapters)"
        )
    png = base64.b64decode(still[1])
    width, height = struct.unpack(">II", png[16:24])
    write_whole(folder / f"{key}.png", lambda part: Path(part).write_bytes(png))
    write_whole(
        folder / f"{key}.js",
        lambda part: Path(part).write_text(script[1], encoding="utf-8"),
    )
    picture = (
        f'<picture class="ddpm-still"><img src="{up}_figures/{key}.png"{still[2]}'
        f' width="{width}" height="{height}" loading="lazy"></picture>'
    )
    html = SCRIPT.sub("", html.replace(still[0], picture))
    return html.replace(
        "<figure ", f'<figure data-script="{up}_figures/{key}.js" ', 1
    )


def sized(match: re.Match, sources: dict[str, str], root: Path) -> str:
    """The beginning of an <img>, with its width and height, so that nothing moves when it comes."""
    source = sources.get(unquote(match[1]))
    size = get_image_size(root / source) if source else None
    return (
        f'<img loading="lazy" width="{size[0]}" height="{size[1]}" '
        if size
        else match[0]
    )


def write_icons(app: Sphinx, error: Exception | None) -> None:
    """The theme's icon fonts, cut to what is in use; book.css names them. Font Awesome Free, SIL OFL 1.1."""
    if error or app.builder.format != "html":
        return
    css = (THEME / "styles" / "pydata-sphinx-theme.css").read_text("utf-8")
    fonts = THEME / "vendor" / "fontawesome" / "webfonts"
    codes = icon_codes(css)
    for name in ("fa-solid-900", "fa-brands-400"):
        write_whole(
            Path(app.outdir, "_static", f"{name}.woff"),
            lambda part, name=name: cut_font(
                fonts / f"{name}.ttf", codes, part
            ),
        )


def icon_codes(css: str) -> set[int]:
    """The places in the icon fonts of ICONS, and of the icons that the theme's own rules use."""
    named = re.compile(
        r'((?:\.fa-[\w-]+:before,?)+)\{content:"\\([0-9a-f]+)"\}'
    )
    places = {
        icon: int(code, 16)
        for selectors, code in named.findall(css)
        for icon in re.findall(r"\.fa-([\w-]+):", selectors)
    }
    if missing := [icon for icon in ICONS if icon not in places]:
        raise ValueError(
            f"the theme has no icon {', '.join(missing)}: see ICONS in book/_ext/pages.py"
        )
    own = {ord(letter) for letter in css if 0xE000 <= ord(letter) <= 0xF8FF}
    # the arrow of a folded part, which sphinx-book-theme writes as an escape
    return {places[icon] for icon in ICONS} | own | {0xF107}


def cut_font(source: Path, codes: set[int], target: str) -> None:
    """The glyphs of `codes`, as far as the font has them, as woff."""
    options = Options(flavor="woff", hinting=False, notdef_outline=True)
    font = load_font(source, options)
    subsetter = Subsetter(options)
    subsetter.populate(unicodes=codes)
    subsetter.subset(font)
    save_font(font, target, options)


def setup(app: Sphinx) -> dict:
    app.add_js_file("book.js", loading_method="defer")
    app.connect("html-page-context", scripts_of_readers)
    app.connect("html-page-context", light_page, priority=950)
    app.connect("build-finished", write_icons)
    return {
        "version": "1",
        "parallel_read_safe": True,
        "parallel_write_safe": True,
    }
