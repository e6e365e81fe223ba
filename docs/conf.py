"""How Sphinx makes the site; ``tox -e docs`` runs it."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from lazr_smtptest._version import __version__  # noqa: E402

project = "lazr_smtptest"
version = release = __version__
project_copyright = "the lazr.smtptest developers"

extensions = ["sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"{project} {release}"
html_show_copyright = False
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["wrap.css"]
highlight_language = "none"  # reports and commands; doctests are known as such

# Docstrings name what they refer to in single backticks.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 78
python_display_short_literal_types = True

# A reference that leads nowhere is an error, but for those that lead into
# other manuals: nothing is to be downloaded for a build.
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", rf"({'|'.join(sorted(sys.stdlib_module_names))}|aiosmtpd|pytest)(\..+)?")
]


def attributes_of_ivars(app, what, name, obj, options, lines):
    """Make an attribute, which can be linked to, of each ``:ivar name:``."""
    types = getattr(obj, "__annotations__", {})
    found = []
    for line in lines:
        ivar = re.match(r":ivar (\w+): *(.*)", line)
        if ivar is None:
            found.append(line)
            continue
        found += ["", f".. py:attribute:: {ivar[1]}"]
        if ivar[1] in types:
            kind = types[ivar[1]]
            found.append(f"    :type: {getattr(kind, '__forward_arg__', kind)}")
        found += ["", f"    {ivar[2]}"]
    lines[:] = found


def skip_tuple_fields(app, what, name, obj, skip, options):
    """Leave out the fields of a named tuple: its docstring has them."""
    return True if type(obj).__name__ == "_tuplegetter" else None


def link_between_pages(app, path, docname, content):
    """Have the links of NEWS and the like, which are to files, lead to pages."""
    content[0] = re.sub(r"`([^`<]+) <docs/([\w-]+)\.rst>`_", r":doc:`\1 </\2>`", content[0])


def setup(app):
    app.add_object_type("fixture", "fixture", objname="pytest fixture")
    app.connect("autodoc-process-docstring", attributes_of_ivars)
    app.connect("autodoc-skip-member", skip_tuple_fields)
    app.connect("include-read", link_between_pages)
