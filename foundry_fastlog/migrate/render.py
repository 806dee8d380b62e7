"""The source of a log call."""

from __future__ import annotations

__all__ = ["render_call", "string_literal"]


def string_literal(text: str) -> str:
    """Write a string literal, in double quotes where that needs no escapes."""
    code = repr(text)
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

    Returns:
        The source; its first line has no margin.
    """
    arguments = [string_literal(message), *(f"{name}={code}" for name, code in fields)]
    flat = f"{function}({', '.join(arguments)})"
    fits = column + len(flat) <= line_length or len(arguments) == 1
    if fits or "\n" in flat or "\r" in flat:
        return flat
    inner = f"{newline}{margin}{indent}"
    return f"{function}({inner}{f',{inner}'.join(arguments)},{newline}{margin})"
