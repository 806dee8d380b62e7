"""Loggers that a class keeps in ``self``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import libcst as cst

from foundry_fastlog.migrate.kinds import Kind, joint_kind, kind_of_annotation, kind_of_value
from foundry_fastlog.migrate.module import Module, function_of, node_of

__all__ = ["ClassLoggers"]

# Special methods that run only after __init__. Others (__new__, __del__, __getattr__,
# __setstate__ ...) may run on an object that has no logger yet.
_LATE = frozenset(
    f"__{name}__"
    for name in [
        "call",
        "enter",
        "exit",
        "aenter",
        "aexit",
        "iter",
        "next",
        "len",
        "getitem",
        "setitem",
        "contains",
    ]
)
# Bases whose __init__ is known not to call methods of subclasses.
_QUIET_BASES = frozenset(
    {
        "object",
        "abc.ABC",
        "threading.Thread",
        "torch.nn.Module",
        "torch.utils.data.Dataset",
        "torch.utils.data.IterableDataset",
        "typing.Generic",
        "typing.Protocol",
    }
)
_NOT_ON_INSTANCES = {"staticmethod", "classmethod"}


@dataclass(frozen=True, slots=True)
class _ClassLogger:
    """A logger of a class.

    Attributes:
        kind: Its kind.
        line: The line that creates it.
        after: First character of ``__init__`` from which it exists; None: from the start.
        in_methods: Every method except ``__init__`` may rely on it.
    """

    kind: Kind
    line: int
    after: int | None
    in_methods: bool


def _functions(owner: cst.ClassDef) -> Iterator[cst.FunctionDef]:
    return (item for item in owner.body.body if isinstance(item, cst.FunctionDef))


def _first_parameter(function: cst.FunctionDef) -> str | None:
    parameters = [*function.params.posonly_params, *function.params.params]
    return parameters[0].name.value if parameters else None


class ClassLoggers:
    """Finds the attribute through which a method reaches its object's logger.

    Args:
        module: The module.
        attribute: The attribute's name.
    """

    def __init__(self, module: Module, attribute: str) -> None:
        self._module = module
        self._attribute = attribute
        self._known: dict[cst.ClassDef, _ClassLogger | None] = {}

    def find(self, node: cst.CSTNode) -> tuple[str, Kind, int] | None:
        """Return the code for the logger at a node, its kind, and the line that creates it.

        Returns:
            None if there is no enclosing class, or if it has no logger that is sure to exist.
        """
        method = function_of(self._module, node)
        while method is not None:
            owner = self._owner(method)
            if owner is not None:
                break
            method = function_of(self._module, method)
        else:
            return None
        receiver = _first_parameter(method)
        logger = self._logger_of(owner)
        if receiver is None or logger is None or not self._there(method, logger, node):
            return None
        bindings = self._module.bindings(receiver, node) or ()
        parameter = [*method.params.posonly_params, *method.params.params][0]
        if [node_of(binding) for binding in bindings] != [parameter]:
            return None  # the name was rebound
        return f"{receiver}.{self._attribute}", logger.kind, logger.line

    def _owner(self, function: cst.FunctionDef) -> cst.ClassDef | None:
        block = self._module.parents[function]
        owner = self._module.parents.get(block)
        return owner if isinstance(owner, cst.ClassDef) else None

    def _there(self, method: cst.FunctionDef, logger: _ClassLogger, node: cst.CSTNode) -> bool:
        """Return whether the logger is sure to exist when a node in a method runs."""
        name = method.name.value
        decorators = {self._module.code(item.decorator) for item in method.decorators}
        if name == self._attribute or decorators & _NOT_ON_INSTANCES:
            return False
        if name == "__init__":
            return logger.after is None or self._module.start(node) > logger.after
        if name.startswith("__") and name.endswith("__") and name not in _LATE:
            return False
        return logger.in_methods

    # ---- what a class says ---------------------------------------------------------------

    def _logger_of(self, owner: cst.ClassDef) -> _ClassLogger | None:
        if owner not in self._known:
            self._known[owner] = None  # the result for a class that inherits from itself
            self._known[owner] = self._own(owner) or self._inherited(owner)
        return self._known[owner]

    def _own(self, owner: cst.ClassDef) -> _ClassLogger | None:
        module = self._module
        kinds, line = [], 0
        of_class = False
        for statement in _simple_statements(owner.body):
            kind = self._assigned(statement, None)
            if kind is not None:
                kinds.append(kind)
                line, of_class = module.lines(statement)[0], True
        for function in _functions(owner):
            if function.name.value == self._attribute:
                kinds.append(kind_of_annotation(module, function.returns))
                line, of_class = module.lines(function)[0], True
            receiver = _first_parameter(function)
            for statement in _all_statements(function):
                kind = self._assigned(statement, receiver)
                if kind is not None:
                    kinds.append(kind)
                    line = line or module.lines(statement)[0]
        if not kinds:
            return None
        if of_class:
            return _ClassLogger(joint_kind(kinds), line, None, in_methods=True)
        return self._made_in_init(owner, joint_kind(kinds), line)

    def _made_in_init(self, owner: cst.ClassDef, kind: Kind, line: int) -> _ClassLogger:
        """Find the statement of ``__init__`` that creates the logger unconditionally."""
        absent = _ClassLogger(kind, line, self._module.span(self._module.tree)[1], in_methods=False)
        init = next((it for it in _functions(owner) if it.name.value == "__init__"), None)
        receiver = _first_parameter(init) if init is not None else None
        if init is None or receiver is None:
            return absent
        for statement in _simple_statements(init.body):
            if self._assigned(statement, receiver) is not None:
                after = self._module.start(statement)
                early = self._uses_object_before(owner, init, receiver, after)
                return _ClassLogger(kind, line, after, in_methods=not early)
        return absent

    def _uses_object_before(
        self, owner: cst.ClassDef, init: cst.FunctionDef, receiver: str, end: int
    ) -> bool:
        """Return whether code of the class may run before its logger is created."""
        module = self._module
        functions = {item.name.value for item in _functions(owner)}
        finder = _Names(receiver)
        init.body.visit(finder)
        for name in finder.found:
            if module.start(name) >= end:
                continue
            parent = module.parents[name]
            if not isinstance(parent, cst.Attribute) or parent.value is not name:
                return True
            if isinstance(module.parents[parent], cst.Call) or parent.attr.value in functions:
                return True
        finder = _Names("super")
        init.body.visit(finder)
        return any(module.start(name) < end for name in finder.found) and not all(
            self._is_quiet(base.value) for base in owner.bases
        )

    def _is_quiet(self, base: cst.BaseExpression) -> bool:
        if isinstance(base, cst.Subscript):  # Generic[T]
            base = base.value
        names = {name.removeprefix("builtins.") for name in self._module.qualified(base)}
        return bool(names) and names <= _QUIET_BASES

    def _inherited(self, owner: cst.ClassDef) -> _ClassLogger | None:
        """Return the logger of the first base class, if it is in the same module."""
        found = self._class_named(owner.bases[0].value) if owner.bases else None
        logger = self._logger_of(found) if found is not None else None
        init = next((it for it in _functions(owner) if it.name.value == "__init__"), None)
        if logger is None or logger.after is None or init is None:
            return logger
        for statement in _simple_statements(init.body):
            if self._module.code(statement).startswith("super().__init__("):
                after = self._module.start(statement)
                early = self._uses_object_before(owner, init, _first_parameter(init) or "", after)
                return replace(logger, after=after, in_methods=logger.in_methods and not early)
        return None

    def _class_named(self, node: cst.BaseExpression) -> cst.ClassDef | None:
        if not isinstance(node, cst.Name):
            return None
        bindings = self._module.bindings(node.value, node) or ()
        nodes = [node_of(binding) for binding in bindings]
        return nodes[0] if len(nodes) == 1 and isinstance(nodes[0], cst.ClassDef) else None

    def _assigned(self, statement: cst.BaseSmallStatement, receiver: str | None) -> Kind | None:
        """Return the kind of logger that a statement assigns to the attribute, None if none.

        Args:
            statement: The statement.
            receiver: The name of the object, or None in the body of the class.
        """
        if isinstance(statement, cst.Assign):
            targets: list[cst.BaseExpression] = [item.target for item in statement.targets]
            kind = kind_of_value(self._module, statement.value)
        elif isinstance(statement, cst.AnnAssign) and statement.value is not None:
            targets = [statement.target]
            kind = kind_of_annotation(self._module, statement.annotation)
            if kind is Kind.UNKNOWN:
                kind = kind_of_value(self._module, statement.value)
        else:
            return None
        return kind if any(self._is_attribute(item, receiver) for item in targets) else None

    def _is_attribute(self, target: cst.BaseExpression, receiver: str | None) -> bool:
        if receiver is None:
            return isinstance(target, cst.Name) and target.value == self._attribute
        return (
            isinstance(target, cst.Attribute)
            and target.attr.value == self._attribute
            and isinstance(target.value, cst.Name)
            and target.value.value == receiver
        )


def _simple_statements(block: cst.BaseSuite) -> Iterator[cst.BaseSmallStatement]:
    """List the simple statements directly in a block."""
    for item in block.body:
        if isinstance(item, cst.SimpleStatementLine):
            yield from item.body
        elif isinstance(item, cst.BaseSmallStatement):
            yield item


def _all_statements(function: cst.FunctionDef) -> list[cst.BaseSmallStatement]:
    """List the assignments anywhere in a function."""
    finder = _Assignments()
    function.body.visit(finder)
    return finder.found


class _Assignments(cst.CSTVisitor):
    def __init__(self) -> None:
        self.found: list[cst.BaseSmallStatement] = []

    def visit_Assign(self, node: cst.Assign) -> None:
        self.found.append(node)

    def visit_AnnAssign(self, node: cst.AnnAssign) -> None:
        self.found.append(node)


class _Names(cst.CSTVisitor):
    def __init__(self, name: str) -> None:
        self._name = name
        self.found: list[cst.Name] = []

    def visit_Name(self, node: cst.Name) -> None:
        if node.value == self._name:
            self.found.append(node)
