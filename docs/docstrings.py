"""What the API reference shows of docstrings and griffe does not see by itself (`make docs`)."""

from __future__ import annotations

import ast
import re

import griffe

_MAKERS = {"Field": 0, "_option": 1}  # what makes a field, and where its default is
_EXAMPLE = re.compile(r"^( *)Example:$", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Describes pydantic's fields by their description, and lets an `Example:` be an example."""

    def on_instance(self, *, obj: griffe.Object, **_: object) -> None:
        """Let doctests be shown as code: of the two headings that Google has, griffe knows one."""
        if obj.docstring is not None:
            obj.docstring.value = _EXAMPLE.sub(r"\1Examples:", obj.docstring.value)

    def on_attribute_instance(self, *, attr: griffe.Attribute, **_: object) -> None:
        """Show a field's default and description instead of the call that makes it."""
        call = attr.value
        if not isinstance(call, griffe.ExprCall) or str(call.function) not in _MAKERS:
            return
        given = {
            one.name: one.value for one in call.arguments if isinstance(one, griffe.ExprKeyword)
        }
        by_place = [one for one in call.arguments if not isinstance(one, griffe.ExprKeyword)]
        description = given.get("description", by_place[-1] if by_place else None)
        if description is not None and attr.docstring is None:
            attr.docstring = griffe.Docstring(ast.literal_eval(str(description)), parent=attr)
            attr.value = given.get("default") or by_place[_MAKERS[str(call.function)]]
