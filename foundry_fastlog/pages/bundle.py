"""Puts a page together: one file with its scripts, styles and data, that needs no network.

The scripts are ES modules that import each other by name. A page has them in one script, each as a
function that returns what it exports: there is no build step, and a page opens from a file, where
browsers load no modules.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import html
import re
from collections.abc import Iterable, Iterator
from importlib.resources import files
from typing import Any

import orjson

__all__ = ["BEGINNING", "page_of", "policy_of", "script_of", "style_of"]

#: How each page begins; such a file may be replaced by another.
BEGINNING = "<!doctype html>\n<!-- foundry-fastlog -->\n"
_STYLES = ("vendor/uPlot.min.css", "assets/theme.css", "assets/page.css")
_LIBRARIES = ("vendor/uPlot.iife.min.js",)
_IMPORT = re.compile(r'^import (\{[^}]*\}) from "\./([a-z_]+)\.js";$', re.MULTILINE)
_EXPORT = re.compile(r"^export ((?:async )?function|class|const) (\w+)", re.MULTILINE)
_ICON = (
    "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'>"
    "<path d='M1 3c3 9 5 9 14 10' fill='none' stroke='#2563eb' stroke-width='2.5'/></svg>"
)


@functools.cache
def script_of(entry: str) -> str:
    """Return the script of a page: the libraries, and all modules that it imports.

    Args:
        entry: The module that starts it, in ``assets/``.
    """
    parts: dict[str, str] = {}
    _add(entry.removesuffix(".js"), parts)
    own = "".join(parts.values())
    libraries = "".join(_read(name) for name in _LIBRARIES)
    return f'{libraries}(() => {{\n"use strict";\n{own}}})();\n'


@functools.cache
def style_of() -> str:
    """Return the styles of all pages."""
    return "".join(_read(name) for name in _STYLES)


def policy_of(entry: str, connect: str = "") -> str:
    """Return what a page may load: its own script and style, and nothing else.

    Args:
        entry: The module that starts it.
        connect: From where it may fetch data.
    """
    script, style = _hash(script_of(entry)), _hash(style_of())
    fetches = f"connect-src {connect}; " if connect else ""
    return (
        f"default-src 'none'; script-src '{script}'; style-src '{style}'; img-src data:; "
        f"{fetches}base-uri 'none'; form-action 'none'"
    )


def page_of(
    title: str, entry: str, data: dict[str, Any], blobs: Iterable[str] = (), connect: str = ""
) -> Iterator[bytes]:
    """Return the parts of a page.

    Args:
        title: Its title.
        entry: The module that starts it.
        data: What the module finds in the element ``data``.
        blobs: Base64 texts that it finds in the elements ``b0``, ``b1``, ...; last in the page.
        connect: As for `policy_of`.
    """
    style, script = style_of(), script_of(entry)
    policy = policy_of(entry, connect)
    icon = base64.b64encode(_ICON.encode()).decode()
    yield (
        f'{BEGINNING}<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f'<link rel="icon" href="data:image/svg+xml;base64,{icon}">\n'
        f"<title>{html.escape(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n"
        '<div id="app"><noscript>This page draws its charts with JavaScript.</noscript></div>\n'
    ).encode()
    yield b'<script type="application/json" id="data">'
    yield _inert(orjson.dumps(data))
    yield f"</script>\n<script>{script}</script>\n".encode()
    for number, blob in enumerate(blobs):
        yield f'<script type="text/plain" id="b{number}">{blob}</script>\n'.encode()
    yield b"</body>\n</html>\n"


def _inert(data: bytes) -> bytes:
    """Escape what could end a script element, or begin a comment in it."""
    return data.replace(b"<", b"\\u003c")


def _add(name: str, parts: dict[str, str]) -> None:
    """Add a module after those that it imports."""
    text = _read(f"assets/{name}.js")
    for _, inner in _IMPORT.findall(text):
        if inner not in parts:
            _add(inner, parts)
    exported = ", ".join(found for _, found in _EXPORT.findall(text))
    body = _EXPORT.sub(r"\1 \2", _IMPORT.sub(r"const \1 = module_\2;", text))
    parts[name] = f"const module_{name} = (() => {{\n{body}return {{ {exported} }};\n}})();\n"


@functools.cache
def _read(name: str) -> str:
    return (files("foundry_fastlog.pages") / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
