"""Regular expressions that take linear time on any text: those of the Rust engine in pydantic."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["compile_pattern"]

_MOST_CHARACTERS = 1000


def compile_pattern(pattern: str) -> Callable[[str], bool]:
    """Return a function that says whether a pattern is found anywhere in a text.

    Unlike Python's ``re`` it never backtracks, so no pattern can hang on any text; so there is no
    look-around and no backreference.

    Raises:
        ValueError: It is no regular expression, or too large. The message says what is wrong.
    """
    from pydantic_core import SchemaError, SchemaValidator, core_schema

    if len(pattern) > _MOST_CHARACTERS:
        raise ValueError(f"a regular expression has at most {_MOST_CHARACTERS:,} characters")
    try:
        return SchemaValidator(
            core_schema.str_schema(pattern=pattern, strict=True)
        ).isinstance_python
    except SchemaError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        said = next((line[7:] for line in lines if line.startswith("error: ")), lines[-1])
        said = said.removeprefix("SchemaError: ").rstrip(".")
        raise ValueError(f"{pattern!r} is no regular expression: {said}") from None
