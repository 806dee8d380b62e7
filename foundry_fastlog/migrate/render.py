"""The source of a log call."""

from __future__ import annotations

__all__ = ["render_call", "string_literal"]


def string_literal(text: str, known: str | None = None) -> str:
    """Write a string literal, in double quotes where that needs no escapes.

    Args:
        text: The string.
        known: The source that the literal is for: beyond ASCII, what does not occur in it is
            written as an escape, as its author did, who may have had to.
    """
    code = repr(text)
    if known is not None and not code.isascii():
        code = "".join(
            char if char.isascii() or char in known else char.encode("unicode_escape").decode()
            for char in code
        )
    return f'"{code[1:-1]}"' if code[0] == "'" and '"' not in code else code


def render_call(
    function: str,
    message: str,
    fields: list[tuple[str, str]],
    *,
    margin: str,
    column: int,
    line_length: int,
    indent: str,
    newline: str,
    known: str,
) -> str:
    """Write a log call, on one line where it fits, else with a line for each argument.

    Args:
        function: What is called.
        message: The message.
        fields: Name and source of each keyword argument.
        margin: The white space at the start of the statement's line.
        column: Where the call starts, in characters.
        line_length: How many characters a line may have.
        indent: One step of indentation.
        newline: The end of a line.
        known: The source that the call is for; see `string_literal`.

    Returns:
        The source; its first line has no margin.
    """
    arguments = [string_literal(message, known), *(f"{name}={code}" for name, code in fields)]
    flat = f"{function}({', '.join(arguments)})"
    fits = column + len(flat) <= line_length or len(arguments) == 1
    if fits or "\n" in flat or "\r" in flat:
        return flat
    inner = f"{newline}{margin}{indent}"
    return f"{function}({inner}{f',{inner}'.join(arguments)},{newline}{margin})"
