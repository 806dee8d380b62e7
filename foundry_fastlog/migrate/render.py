"""Source code of log calls."""

from __future__ import annotations

__all__ = ["render_call", "string_literal"]


def string_literal(text: str, known: str | None = None) -> str:
    """Return a string literal, in double quotes unless that needs escapes.

    Args:
        text: The string.
        known: The source that the literal is for. Non-ASCII characters that do not occur in it
            are escaped, as its author must have escaped them.
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
    """Return a log call, on one line if it fits, else with one argument per line.

    Args:
        function: The function to call.
        message: The message.
        fields: Name and source of each keyword argument.
        margin: The white space at the start of the statement's line.
        column: The column where the call starts, in characters.
        line_length: Maximum number of characters per line.
        indent: One level of indentation.
        newline: The line ending.
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
