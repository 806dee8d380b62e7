"""One parsed module, with information about its names and positions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import accumulate

import libcst as cst
from libcst import metadata as meta

__all__ = ["Module", "function_of", "node_of", "source_lines"]

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")


def source_lines(source: str) -> list[str]:
    """Split a source into its lines, with their endings; a form feed does not end a line."""
    return _LINE.findall(source)


class Module:
    """A module with its metadata.

    Args:
        tree: The module.
    """

    def __init__(self, tree: cst.Module) -> None:
        # A freshly parsed tree contains no node twice, so it needs no copy.
        wrapper = meta.MetadataWrapper(tree, unsafe_skip_copy=True)
        self.tree = wrapper.module
        providers = (meta.ParentNodeProvider, meta.ScopeProvider, meta.PositionProvider)
        wrapper.resolve_many(providers)  # in as few passes as possible
        self.parents = wrapper.resolve(meta.ParentNodeProvider)
        self._scopes = wrapper.resolve(meta.ScopeProvider)
        self._positions = wrapper.resolve(meta.PositionProvider)
        lengths = [len(line) for line in source_lines(tree.code)]
        self._line_starts = [0, *accumulate(lengths)]
        self._captures = _Captures()
        self.tree.visit(self._captures)

    # ---- positions -----------------------------------------------------------------------

    def span(self, node: cst.CSTNode) -> tuple[int, int]:
        """Return the offsets of a node's start and end in the source."""
        end = self._positions[node].end
        return self.start(node), self._line_starts[end.line - 1] + end.column

    def start(self, node: cst.CSTNode) -> int:
        """Return the offset of a node's start in the source."""
        start = self._positions[node].start
        return self._line_starts[start.line - 1] + start.column

    def lines(self, node: cst.CSTNode) -> tuple[int, int]:
        """Return the first and the last line of a node, from 1."""
        position = self._positions[node]
        return position.start.line, position.end.line

    def column(self, node: cst.CSTNode) -> int:
        """Return the column of a node's start, from 0, in characters."""
        return self._positions[node].start.column

    def code(self, node: cst.CSTNode) -> str:
        """Return the source of a node."""
        return self.tree.code_for_node(node)

    def ancestors(self, node: cst.CSTNode) -> Iterator[cst.CSTNode]:
        """List the enclosing nodes of a node, innermost first."""
        while (parent := self.parents.get(node)) is not None:
            yield parent
            node = parent

    # ---- names ---------------------------------------------------------------------------

    def bindings(self, name: str, at: cst.CSTNode) -> Sequence[meta.BaseAssignment] | None:
        """List what a name may refer to at a node; None if that is unknown."""
        scope = self._scopes.get(at)
        return None if scope is None else sorted(scope[name], key=self._binding_order)

    def _binding_order(self, binding: meta.BaseAssignment) -> int:
        node = node_of(binding)
        return -1 if node is None else self.start(node)

    def is_builtin(self, name: str, at: cst.CSTNode) -> bool:
        """Return whether a name means the builtin at a node."""
        if self.is_captured(name):
            return False
        found = self.bindings(name, at)
        return bool(found) and all(isinstance(it, meta.BuiltinAssignment) for it in found or ())

    def is_captured(self, name: str) -> bool:
        """Return whether a pattern, or an assignment to `builtins`, may bind a name."""
        return name in self._captures.names

    def line_of_binding(self, name: str, at: cst.CSTNode) -> int | None:
        """Return the line that binds a name, as seen at a node."""
        for binding in self.bindings(name, at) or ():
            node = node_of(binding)
            if node is not None:
                return self.lines(node)[0]
        return None

    def constant(self, name: cst.Name) -> cst.BaseExpression | None:
        """Return the expression that the module assigns to a name, if it does so once."""
        bindings = self.bindings(name.value, name) or ()
        node = node_of(bindings[0]) if len(bindings) == 1 and self.is_global(bindings[0]) else None
        target = self.parents.get(node) if node is not None else None
        if not isinstance(target, cst.AssignTarget):
            return None
        return cst.ensure_type(self.parents[target], cst.Assign).value

    def qualified(self, node: cst.CSTNode) -> set[str]:
        """Return the dotted names that an expression may refer to, according to the imports."""
        scope = self._scopes.get(node)
        if scope is None or not isinstance(node, cst.Name | cst.Attribute | cst.Call):
            return set()
        return {found.name for found in scope.get_qualified_names_for(node)}

    def is_global(self, binding: meta.BaseAssignment) -> bool:
        """Return whether a binding is in the module's global scope."""
        return isinstance(binding.scope, meta.GlobalScope)


class _Captures(cst.CSTVisitor):
    """Collects names that LibCST's scopes miss: those bound by patterns and `builtins.x = y`."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def visit_MatchAs(self, node: cst.MatchAs) -> None:
        self._add(node.name)

    def visit_MatchStar(self, node: cst.MatchStar) -> None:
        self._add(node.name)

    def visit_MatchMapping(self, node: cst.MatchMapping) -> None:
        self._add(node.rest)

    def visit_AssignTarget(self, node: cst.AssignTarget) -> None:
        target = node.target
        if (
            isinstance(target, cst.Attribute)
            and isinstance(target.value, cst.Name)
            and target.value.value in ("builtins", "__builtins__")
        ):
            self._add(target.attr)

    def _add(self, name: cst.Name | None) -> None:
        if name is not None:
            self.names.add(name.value)


def function_of(module: Module, node: cst.CSTNode) -> cst.FunctionDef | None:
    """Return the innermost function whose body contains a node."""
    inner = node
    for outer in module.ancestors(node):
        if isinstance(outer, cst.FunctionDef) and inner is outer.body:
            return outer
        inner = outer
    return None


def node_of(binding: meta.BaseAssignment) -> cst.CSTNode | None:
    """Return the node that binds a name; None for a builtin."""
    return binding.node if isinstance(binding, meta.Assignment) else None
