"""`make docs`: the pages of this folder and the API from docstrings, as a site; nothing of it is fetched elsewhere."""

from edgeclip import __version__

project, author, release = "edgeclip", "edgeclip contributors", __version__
copyright = author
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["site"]
html_theme = "furo"
html_title = f"edgeclip {release}"
html_show_sphinx = False
myst_heading_anchors = 2
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
nitpicky = False
