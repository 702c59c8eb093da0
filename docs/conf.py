"""Sphinx: MyST pages beside an API reference made from the docstrings.

sphinx-build -W docs docs/_build
"""

import os
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src"
sys.path[:0] = [str(SOURCE), str(Path(__file__).parent)]
os.environ["PYTHONPATH"] = str(SOURCE)  # for the processes of the notebooks

import floors  # noqa: E402
from sphinx.application import Sphinx  # noqa: E402
from sphinx.domains.python import PythonDomain  # noqa: E402

import elision  # noqa: E402

floors.write()  # the picture of the architecture page, from the imports of today

project = "Elision"
author = "The Elision authors"
copyright = "2026, The Elision authors"
version = release = elision.__version__

extensions = [
    "myst_nb",  # MyST pages, and notebooks: they are executed at the build
    "sphinx.ext.apidoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",  # the script among the pages: formulas without a network
]
exclude_patterns = ["_build", "reference/modules.rst"]

myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_execution_show_tb = True
nb_output_stderr = "remove"  # progress, and the engines chosen here

# One page a room, written anew at every build: the sidebar of every page lists all pages,
# and with one a module most of the build would be sidebars.
apidoc_modules = [
    {
        "path": str(SOURCE / "elision"),
        "destination": "reference",
        "separate_modules": False,
        "module_first": True,
        "automodule_options": {"members", "show-inheritance"},
    }
]
autodoc_use_type_comments = False  # there are none
autodoc_member_order = "bysource"
# Every page holds the tree of all pages, and this tree every name: most of a build. The
# search finds names, and a room's page has its modules in its margin.
toc_object_entries = False
# A name is documented where it is defined, not again where it is passed on.
autodoc_default_options = {"ignore-module-all": True}
# The names of attributes in prose are looked up as if they were references.
suppress_warnings = ["ref.python"]
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = "Elision"
html_static_path = ["_static"]
html_css_files = ["pictures.css"]
html_search_scorer = str(Path(__file__).parent / "_static" / "scorer.js")
html_use_index = False  # of thousands of names, which nothing links to


class OwnNames(PythonDomain):
    """Python's names, which answers at once for those that this library does not have.

    Sphinx compares each such name, as of every ``ValueError`` that is raised, with the ends
    of all names that are documented: a third of a build.
    """

    def find_obj(self, *args, **kwargs):
        """As Sphinx's own, whose fourth argument is the name."""
        name = kwargs.get("name") or args[3]
        if len(self.objects) != getattr(self, "known", None):
            self.known = len(self.objects)
            self.lasts = {name.rpartition(".")[2] for name in self.objects}
        if name.removesuffix("()").rpartition(".")[2] not in self.lasts:
            return []
        return super().find_obj(*args, **kwargs)


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.add_domain(OwnNames, override=True)
