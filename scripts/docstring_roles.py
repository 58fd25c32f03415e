"""A Griffe extension for the documentation site: Sphinx roles of docstrings become code.

Docstrings say ``:class:`ConfigError```, which Markdown would show with its colons.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:class|func|meth|mod|attr|exc):`(~?)([^`]+)`")


def _as_code(match: re.Match[str]) -> str:
    shortened, target = match.groups()
    return f"`{target.rpartition('.')[2] if shortened else target}`"


class DocstringRoles(griffe.Extension):
    """Replaces the roles of every docstring as it is loaded."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite one object's docstring."""
        if obj.docstring is not None:
            obj.docstring.value = _ROLE.sub(_as_code, obj.docstring.value)
