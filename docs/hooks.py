"""What mkdocs does with pages that were written for a forge (`make docs`).

They link to files of the repository by relative paths, which a forge follows. So that the site
needs no forge, each file outside docs/ that is linked becomes a page of it below repository/:
Markdown as it is, a source as its lines, a folder as the list of its files. A link to what is not
there is left as it is, and fails a strict build.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
README = ROOT / "README.md"

_TARGET = re.compile(r"(?<=\]\()[^)#:\s]+")
_CODE = re.compile(r"`[^`\n]+`")
_HIDDEN = "---\nsearch:\n  exclude: true\n---\n\n"  # sources would bury the pages in a search
_LEXERS = {".hpp": "cpp", ".ipynb": "json", ".txt": "text", ".yml": "yaml"}


def on_files(files: Files, *, config: MkDocsConfig) -> None:
    """Add a page for each file outside docs/ that a page links to, and for what those link to."""
    from mkdocs.structure.files import File  # here, so that tests need no mkdocs

    waiting = [Path(str(file.abs_src_path)) for file in files.documentation_pages()] + [README]
    while waiting:
        page = waiting.pop()
        for target in _linked(page):
            uri = uri_of(target)
            if not target.is_relative_to(DOCS) and files.get_file_from_path(uri) is None:
                files.append(File.generated(config, uri, content=_content(target)))
                waiting += [target] * (target.suffix == ".md")


def on_page_markdown(markdown: str, *, page: Page, **_: object) -> str:
    """Let the links of a page of docs/ lead to pages; the first one has the README in it."""
    if page.file.generated_by is not None:  # has been relinked
        return pipes_in_tables(markdown)
    if page.parent is None:
        page.meta["hide"] = ["navigation"]  # there is nothing beside it
    text = relinked(markdown, DOCS / page.file.src_uri)
    if page.file.src_uri == "index.md":
        readme = relinked(README.read_text(encoding="utf-8").partition("\n## More")[0], README)
        first_screen, *sections = readme.partition("\n## ")
        text = first_screen + text.partition("\n")[2] + "".join(sections)
    return pipes_in_tables(text)


def uri_of(path: Path) -> str:
    """Return the page that shows a file or folder of the repository."""
    if path == README:
        return "index.md"
    if path.is_relative_to(DOCS):
        return path.relative_to(DOCS).as_posix()
    return f"repository/{path.relative_to(ROOT).as_posix().removesuffix('.md')}.md"


def relinked(markdown: str, origin: Path) -> str:
    """Return a file's Markdown with its relative links as they are between pages of the site."""
    here = posixpath.dirname(uri_of(origin)) or "."

    def between_pages(match: re.Match[str]) -> str:
        target = _resolved(match[0], origin)
        return match[0] if target is None else posixpath.relpath(uri_of(target), here)

    return _TARGET.sub(between_pages, markdown)


def pipes_in_tables(markdown: str) -> str:
    """Take the backslash from pipes of code in tables: a forge needs it, the site shows it."""
    return "\n".join(
        _CODE.sub(lambda code: code[0].replace("\\|", "|"), line) if line.startswith("|") else line
        for line in markdown.split("\n")
    )


def _linked(page: Path) -> Iterator[Path]:
    """Yield the files and folders of the repository that a page links to."""
    for match in _TARGET.finditer(page.read_text(encoding="utf-8")):
        target = _resolved(match[0], page)
        if target is not None:
            yield target


def _resolved(link: str, origin: Path) -> Path | None:
    target = (origin.parent / link).resolve()
    return target if target.is_relative_to(ROOT) and target.exists() else None


def _content(path: Path) -> str:
    """Return the Markdown of a page that shows a file or a folder."""
    title = f"{_HIDDEN}# {path.relative_to(ROOT).as_posix()}\n\n"
    if path.is_dir():
        names = sorted(each.name for each in path.iterdir() if each.name != "__pycache__")
        return title + "\n".join(f"- `{name}`" for name in names)
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return relinked(text, path)
    lexer = _LEXERS.get(path.suffix, path.suffix[1:])
    return f"{title}~~~~~~ {lexer}\n{text}~~~~~~\n"
