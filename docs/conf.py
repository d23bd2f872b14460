"""Settings of Sphinx: `sphinx-build -W --keep-going -b html docs build/html`."""

from pathlib import Path

import fastprune

project = "fastprune"
author = copyright = "The fastprune developers"
version = release = fastprune.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
myst_heading_anchors = 3

default_role = "py:obj"  # of `names` in docstrings: a link where there is something to link to
autosummary_generate = True
autodoc_typehints = "none"  # the docstrings have the types
autodoc_default_options = {"members": True, "inherited-members": True, "undoc-members": False}
autoclass_content = "class"
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

html_theme = "pydata_sphinx_theme"
html_title = "fastprune"
html_theme_options = {"show_prev_next": False, "navbar_align": "left", "header_links_before_dropdown": 6}
# Only the API has pages below it, to be listed at the side.
html_sidebars = {path.stem: [] for path in Path(__file__).parent.glob("*.md") if path.stem != "api"}
html_show_sourcelink = False
html_copy_source = False


def _keep_bars(app, what, name, object, options, lines):
    """|w| is an absolute value in the docstrings, not a substitution."""
    lines[:] = [line.replace("|", r"\|") for line in lines]


def setup(app):
    """Connect what is said above."""
    app.connect("autodoc-process-docstring", _keep_bars, priority=1)
