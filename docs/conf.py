"""Sphinx configuration."""

from __future__ import annotations

import os
import shutil
from importlib.metadata import version as distribution_version
from pathlib import Path

# Sphinx reads nothing above its own folder.
HERE = Path(__file__).parent
shutil.copytree(HERE.parent / "tutorials", HERE / "tutorials", dirs_exist_ok=True)

project = "scfound-atac"
author = "The scfound-atac developers"
copyright = "2026, the scfound-atac developers"
version = release = distribution_version("scfound-atac")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_autodoc_typehints",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "_templates", "**.ipynb_checkpoints"]
templates_path = ["_templates"]
default_role = "py:obj"
suppress_warnings = [
    # types that are imported for the type checker only stay plain text
    "sphinx_autodoc_typehints.forward_reference",
    "sphinx_autodoc_typehints.guarded_import",
]

autosummary_generate = True
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_ivar = True  # attributes are described once, by the class
typehints_defaults = "braces"
always_use_bars_union = True

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
# Notebooks are stored without outputs and executed here, so that the pages show tables and pictures; nothing is downloaded.
nb_execution_mode = "auto"
nb_execution_timeout = 300
nb_execution_raise_on_error = True

# The inventories of other projects need a network; a build without one leaves those names as plain text.
if os.environ.get("READTHEDOCS"):
    intersphinx_mapping = {
        "anndata": ("https://anndata.readthedocs.io/en/stable/", None),
        "mudata": ("https://mudata.readthedocs.io/stable/", None),
        "numpy": ("https://numpy.org/doc/stable/", None),
        "pandas": ("https://pandas.pydata.org/docs/", None),
        "python": ("https://docs.python.org/3", None),
        "scanpy": ("https://scanpy.readthedocs.io/en/stable/", None),
        "torch": ("https://docs.pytorch.org/docs/stable/", None),
    }

html_theme = "sphinx_book_theme"
html_title = "scfound-atac"
html_theme_options = {"show_navbar_depth": 2}
