"""Which logger a converted call uses, and what to add to a module that has none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

import libcst as cst
from libcst import metadata as meta

from foundry_fastlog.migrate.classes import ClassLoggers
from foundry_fastlog.migrate.kinds import Kind, binding_is_parameter, joint_kind, kind_of_binding
from foundry_fastlog.migrate.model import LeftAloneError, Options
from foundry_fastlog.migrate.module import Module, function_of, node_of, source_lines

__all__ = ["Insertion", "LoggerChooser"]

_CLASS = "StructuredLogger"
_SET_UP = "setup_logging"
_IMPORT = f"from foundry_fastlog import {_CLASS}"


@dataclass(frozen=True, slots=True)
class Insertion:
    """Lines for a module that has no logger yet.

    Attributes:
        line: Insert them before this line, from 1.
        lines: The lines.
    """

    line: int
    lines: list[str]

    def with_set_up(self, call: str) -> Insertion:
        """Return the same with the import of `setup_logging`, and with its call unless it is ""."""
        lines = [f"{line}, {_SET_UP}" if line == _IMPORT else line for line in self.lines]
        if lines == self.lines:  # the class is imported already
            lines.insert(len(lines) - 2, f"from foundry_fastlog import {_SET_UP}")
        return Insertion(self.line, [*lines, call] if call else lines)


class LoggerChooser:
    """Chooses the logger for each place of one module.

    Args:
        module: The module.
        options: The user's options.
    """

    def __init__(self, module: Module, options: Options) -> None:
        self._module = module
        self._options = options
        self._classes = ClassLoggers(module, options.logger)
        self._has_star_import = any(
            isinstance(item, cst.ImportFrom) and isinstance(item.names, cst.ImportStar)
            for item in _top_level(module.tree)
        )
        self._first_call = self._first_call_of_own_code()

    @property
    def has_star_import(self) -> bool:
        """Whether the module has a star import."""
        return self._has_star_import

    def choose(self, node: cst.CSTNode, *, with_fields: bool) -> tuple[str, str | None, bool]:
        """Choose the logger for a call.

        Args:
            node: The call to be replaced.
            with_fields: The new call has fields, or exc_info.

        Returns:
            Its code, a note for the user, and whether the module must define it first.

        Raises:
            LeftAloneError: No logger is sure to work.
        """
        note = None
        found = self._classes.find(node)
        if found is not None:
            code, kind, line = found
            trusted = kind is Kind.UNKNOWN and self._options.assume_structured
            if kind is Kind.STRUCTURED or trusted:
                return code, None, False
            what = "a logging.Logger" if kind is Kind.STDLIB else "of an unknown type"
            note = f"{code} (line {line}) is {what}, so the module's logger is used"
        name = self._options.logger
        if self._module.is_captured(name):
            raise LeftAloneError(f"a pattern binds {name}; choose another name with --logger")
        bindings = self._module.bindings(name, node)
        if not bindings:
            return name, note, True
        self._check_binding(bindings, node, with_fields=with_fields)
        return name, note, False

    def _check_binding(
        self, bindings: Sequence[meta.BaseAssignment], node: cst.CSTNode, *, with_fields: bool
    ) -> None:
        """Refuse a name that is not, or not yet, a logger that supports the call."""
        name = self._options.logger
        line = self._module.line_of_binding(name, node)
        if not all(map(binding_is_parameter, bindings)):
            first = self._defined_at(bindings)
            if first is None:
                raise LeftAloneError(
                    f"{name} is not a single object defined in this module (line {line}); "
                    "choose another name with --logger"
                )
            runs_early = self._module.start(node) < first and self._runs_at_import(node)
            if runs_early or self._first_call < first:
                raise LeftAloneError(f"may run before {name} is defined on line {line}")
        kind = joint_kind(kind_of_binding(self._module, binding) for binding in bindings)
        if kind is Kind.STDLIB and with_fields:
            raise LeftAloneError(
                f"{name} (line {line}) is a logging.Logger, which takes no fields; make it a "
                "StructuredLogger, or choose another name with --logger"
            )
        if kind is Kind.UNKNOWN and not self._options.assume_structured:
            raise LeftAloneError(
                f"the type of {name} is unknown here (line {line}); choose another name with "
                "--logger, or use --assume-structured"
            )

    def _defined_at(self, bindings: Sequence[meta.BaseAssignment]) -> int | None:
        """Return where the module's body defines a name, if exactly once and unconditionally."""
        only = bindings[0] if len(bindings) == 1 and self._module.is_global(bindings[0]) else None
        node = node_of(only) if only is not None else None
        if node is None:
            return None
        for outer in self._module.ancestors(node):
            if isinstance(outer, cst.SimpleStatementLine):
                top = self._module.parents.get(outer) is self._module.tree
                return self._module.start(outer) if top else None
        return None

    # ---- execution order of a module -----------------------------------------------------

    def _runs_at_import(self, node: cst.CSTNode) -> bool:
        return function_of(self._module, node) is None

    def _first_call_of_own_code(self) -> int:
        """Return where the module, during its import, first calls something it defines."""
        own = _OwnNames()
        self._module.tree.visit(own)
        finder = _RunAtImport(own.names)
        self._module.tree.visit(finder)
        end = self._module.span(self._module.tree)[1] + 1
        return min((self._module.start(node) for node in finder.found), default=end)

    def insertion(self, converted: list[cst.Call]) -> Insertion:
        """Determine where and how to define the module's logger.

        Args:
            converted: The calls that will use it.

        Raises:
            LeftAloneError: There is no suitable place.
        """
        module, name = self._module, self._options.logger
        early = [module.start(call) for call in converted if self._runs_at_import(call)]
        limit = min([self._first_call, *early])
        body = module.tree.body
        place, blank_before = _line_after_comments(module), False
        imported = self._class_is_imported(limit)
        for index, statement in enumerate(body):
            first = module.start(statement)
            last_line = module.lines(statement)[1]
            if isinstance(statement, cst.FunctionDef | cst.ClassDef):
                break
            if module.span(statement)[1] > limit and first <= limit:
                if _must_come_first(statement, index):
                    raise LeftAloneError("shares its line with a statement that must stay first")
                break
            first_of_all = _must_come_first(statement, index)
            if first_of_all or _is_import(statement):
                place, blank_before = last_line + 1, first_of_all
        lines = [] if imported else [_IMPORT]
        if blank_before:
            lines.insert(0, "")
        lines += ["", f"{name} = {_CLASS}(__name__)"]
        return Insertion(place, lines)

    def has_free_set_up(self) -> bool:
        """Return whether the module can import `setup_logging`: its name means nothing yet."""
        module = self._module
        return not (module.is_captured(_SET_UP) or module.bindings(_SET_UP, module.tree.body[0]))

    def _class_is_imported(self, limit: int) -> bool:
        """Return whether the class is already imported; refuse if its name is something else."""
        tree = self._module.tree
        bindings = list(self._module.bindings(_CLASS, tree.body[0]) or ())
        if not bindings:
            return False
        where = self._defined_at(bindings)
        names = {qualified for it in bindings for qualified in _imported_names(it)}
        if where is None or where >= limit or names != {f"foundry_fastlog.{_CLASS}"}:
            line = self._module.line_of_binding(_CLASS, tree.body[0])
            raise LeftAloneError(f"{_CLASS} is not foundry_fastlog's here (line {line})")
        return True


def _imported_names(binding: meta.BaseAssignment) -> Iterator[str]:
    if isinstance(binding, meta.ImportAssignment):
        for found in binding.get_qualified_names_for(_CLASS):
            yield found.name
    else:
        yield ""


def _top_level(tree: cst.Module) -> Iterator[cst.CSTNode]:
    finder = _Imports()
    tree.visit(finder)
    return iter(finder.found)


def _is_import(statement: cst.CSTNode) -> bool:
    """Return whether a statement is an import, possibly a conditional one."""
    if isinstance(statement, cst.SimpleStatementLine):
        return any(isinstance(item, cst.Import | cst.ImportFrom) for item in statement.body)
    if isinstance(statement, cst.If | cst.Try):
        return any(_is_import(item) for item in statement.body.body)
    return False


def _must_come_first(statement: cst.CSTNode, index: int) -> bool:
    """Return whether a statement is the docstring or a ``__future__`` import."""
    if not isinstance(statement, cst.SimpleStatementLine):
        return False
    first = statement.body[0]
    if isinstance(first, cst.Expr):
        return index == 0 and isinstance(first.value, cst.SimpleString | cst.ConcatenatedString)
    return (
        isinstance(first, cst.ImportFrom)
        and isinstance(first.module, cst.Name)
        and first.module.value == "__future__"
    )


def _line_after_comments(module: Module) -> int:
    """Return the line after the comments at the start of a file."""
    lines = source_lines(module.tree.code)
    return 1 + sum(1 for _ in takewhile(lambda line: line.startswith("#"), lines))


class _Imports(cst.CSTVisitor):
    def __init__(self) -> None:
        self.found: list[cst.CSTNode] = []

    def visit_ImportFrom(self, node: cst.ImportFrom) -> None:
        self.found.append(node)


class _OwnNames(cst.CSTVisitor):
    """Collects the functions and classes that a module defines, at any depth."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def visit_FunctionDef(self, node: cst.FunctionDef) -> None:
        self.names.add(node.name.value)

    def visit_ClassDef(self, node: cst.ClassDef) -> None:
        self.names.add(node.name.value)


class _RunAtImport(cst.CSTVisitor):
    """Collects calls and decorators of the module's own names that run during its import."""

    def __init__(self, own: set[str]) -> None:
        self._own = own
        self.found: list[cst.CSTNode] = []

    def _note(self, node: cst.BaseExpression) -> None:
        name = node
        while isinstance(name, cst.Attribute | cst.Call):
            name = name.value if isinstance(name, cst.Attribute) else name.func
        last = node.attr.value if isinstance(node, cst.Attribute) else ""
        if (isinstance(name, cst.Name) and name.value in self._own) or last in self._own:
            self.found.append(node)

    def visit_Call(self, node: cst.Call) -> None:
        self._note(node.func)

    def visit_Decorator(self, node: cst.Decorator) -> None:
        self._note(node.decorator)

    def visit_FunctionDef(self, node: cst.FunctionDef) -> bool:
        for part in (*node.decorators, node.params):
            part.visit(self)
        return False

    def visit_Lambda(self, node: cst.Lambda) -> bool:  # noqa: ARG002 - LibCST's protocol
        return False
