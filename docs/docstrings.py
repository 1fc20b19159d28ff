"""How our docstrings become pages: examples fenced, ``a, b: text`` as two entries, Sphinx's roles as plain code."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

EXAMPLE = re.compile(r"^>>> .*(?:\n(?!\s*$).*)*", re.MULTILINE)
SEVERAL = re.compile(r"^(    )(\w+(?:, \w+)+): (.*)$", re.MULTILINE)
ROLE = re.compile(r":(?:func|class|meth|mod|attr|data):`~?([^`]+)`")


def readable(text: str) -> str:
    """Return a docstring as mkdocstrings reads it best.

    >>> readable("Say it.")
    'Say it.'
    """
    text = ROLE.sub(r"`\1`", text)
    text = SEVERAL.sub(lambda found: "\n".join(f"{found[1]}{name}: {found[3]}" for name in found[2].split(", ")), text)
    return EXAMPLE.sub(lambda found: f"```pycon\n{found[0]}\n```", text)


class Docstrings(Extension):
    """Called by griffe for each object that has been loaded."""

    def on_object(self, *, obj: Object, loader: Any, **kwargs: Any) -> None:
        """Rewrite one docstring in place."""
        if obj.docstring:
            obj.docstring.value = readable(obj.docstring.value)
