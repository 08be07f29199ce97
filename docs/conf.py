"""Sphinx: the documentation, built without warnings, readable without a network."""

from __future__ import annotations

from importlib.metadata import version as version_of

project = "p2pmed"
author = "the p2pmed authors"
release = version_of("p2pmed")
version = release

extensions = ["myst_parser", "sphinx.ext.autodoc"]
source_suffix = {".md": "markdown"}
root_doc = "index"
exclude_patterns = ["_build", "changes/*"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": False}
autodoc_class_signature = "separated"

html_theme = "furo"
html_title = "p2pmed"
html_static_path = ["_static"]
html_show_sourcelink = False
html_copy_source = False
