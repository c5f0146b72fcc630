"""How the documentation is built: ``nox -s docs``, and of all versions ``nox -s site``."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version as installed
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "runtara-trio"
author = copyright = "The runtara-trio maintainers"
version = release = installed("runtara-trio")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
    "code_tables",
]
exclude_patterns = ["_build", "_templates"]
html_theme = "furo"
html_title = f"runtara-trio {version}"
html_static_path: list[str] = []
templates_path = ["_templates"]
html_context = {"versions": os.environ.get("DOCS_VERSIONS", "").split()}
html_sidebars = {
    "**": [
        *("sidebar/brand.html", "sidebar/search.html", "sidebar/scroll-start.html"),
        *("sidebar/navigation.html", "versions.html", "sidebar/scroll-end.html"),
    ]
}

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

suppress_warnings = ["ref.python"]  # "type" is the name of fields, and of a class of Python

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_preserve_defaults = True
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
