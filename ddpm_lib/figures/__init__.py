"""Interactive figures: self-contained HTML that needs no kernel and no network, each with a still picture.

A figure shows itself as the last expression of a cell, on a page, in Jupyter, VS Code and Colab; where
scripts do not run, its picture remains. Each kind is a module and a script of the same name, side by side:
``scrubber.py`` checks and stores what it is given and draws the picture, ``scrubber.js`` draws the rest. What all
share is in ``common``, formulas are in ``formulas``. matplotlib and latex2mathml are imported when a figure is made.
"""

# A module and its function share a name. Each module is loaded here before its function takes the name, and
# Python sets a package's attribute to a module only on loading it: figures.scrubber stays the function.
from .common import Figure
from .converter import converter
from .derivation import Line, derivation
from .gallery import gallery
from .hover_weights import hover_weights
from .network import network
from .sample_size import sample_size
from .schedule_designer import schedule_designer
from .scrubber import scrubber

# In the order in which the book has them, and so the reference.
__all__ = [
    "Figure",
    "scrubber",
    "schedule_designer",
    "hover_weights",
    "Line",
    "derivation",
    "converter",
    "network",
    "gallery",
    "sample_size",
]
