"""Settings of Sphinx: `sphinx-build -W --keep-going -b html docs build/html`."""

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
exclude_patterns = ["generated/README.md"]
myst_heading_anchors = 3

autosummary_generate = True
autodoc_typehints = "none"  # the docstrings have the types
autodoc_default_options = {"members": True, "inherited-members": True, "undoc-members": False}
autoclass_content = "class"
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

html_theme = "pydata_sphinx_theme"
html_theme_options = {"show_prev_next": False, "navbar_align": "left", "secondary_sidebar_items": ["page-toc"]}
html_sidebars = {"**": ["sidebar-nav-bs"]}
html_show_sourcelink = False
html_copy_source = False


def _keep_bars(app, what, name, object, options, lines):
    """|w| is an absolute value in the docstrings, not a substitution."""
    lines[:] = [line.replace("|", r"\|") for line in lines]


def setup(app):
    """Connect what is said above."""
    app.connect("autodoc-process-docstring", _keep_bars, priority=1)
