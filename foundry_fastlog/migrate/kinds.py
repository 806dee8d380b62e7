"""The kind of logger that an expression creates: one that takes fields, or one that does not."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

import libcst as cst
from libcst import metadata as meta

from foundry_fastlog.migrate.module import Module, node_of

__all__ = ["Kind", "joint_kind", "kind_of_annotation", "kind_of_binding", "kind_of_value"]


class Kind(Enum):
    """Whether a logger's methods take fields."""

    STRUCTURED = "structured"
    STDLIB = "stdlib"
    UNKNOWN = "unknown"


_STDLIB_CALLS = {"getLogger", "Logger", "LoggerAdapter"}
_STDLIB_HELPERS = {"setup_logging", "setup_experiment_logging"}
_STRUCTURED_CALLS = {
    "structlog.get_logger",
    "structlog.getLogger",
    "structlog.stdlib.get_logger",
    "foundry_fastlog.get_logger",
    "foundry_fastlog.messages.structured.get_logger",
}


def joint_kind(kinds: Iterable[Kind]) -> Kind:
    """Return the common kind, or UNKNOWN."""
    found = set(kinds)
    return found.pop() if len(found) == 1 else Kind.UNKNOWN


def _kind_of_name(name: str) -> Kind:
    last = name.rpartition(".")[2]
    if last == "StructuredLogger" or name in _STRUCTURED_CALLS:
        return Kind.STRUCTURED
    if name in {f"logging.{call}" for call in _STDLIB_CALLS} or last in _STDLIB_HELPERS:
        return Kind.STDLIB
    return Kind.UNKNOWN


def kind_of_value(module: Module, node: cst.BaseExpression | None) -> Kind:
    """Return the kind of logger that an assigned expression is."""
    if isinstance(node, cst.Call):
        return joint_kind(map(_kind_of_name, module.qualified(node.func)))
    if isinstance(node, cst.Name):  # an annotated parameter, or another logger's name
        return joint_kind(
            kind_of_binding(module, binding) if binding_is_parameter(binding) else Kind.UNKNOWN
            for binding in module.bindings(node.value, node) or ()
        )
    return Kind.UNKNOWN


def kind_of_annotation(module: Module, annotation: cst.Annotation | None) -> Kind:
    """Return the kind of logger that an annotation declares."""
    if annotation is None:
        return Kind.UNKNOWN
    node = annotation.annotation
    if isinstance(node, cst.SimpleString):
        return _kind_of_name(str(node.evaluated_value))
    return joint_kind(map(_kind_of_name, module.qualified(node)))


def binding_is_parameter(binding: meta.BaseAssignment) -> bool:
    """Return whether a name is bound as a parameter."""
    return isinstance(node_of(binding), cst.Param)


def kind_of_binding(module: Module, binding: meta.BaseAssignment) -> Kind:
    """Return the kind of logger that a name is bound to."""
    node = node_of(binding)
    if isinstance(node, cst.Param):
        return kind_of_annotation(module, node.annotation)
    target = module.parents.get(node) if isinstance(node, cst.Name) else None
    if isinstance(target, cst.AnnAssign):
        annotated = kind_of_annotation(module, target.annotation)
        return annotated if annotated is not Kind.UNKNOWN else kind_of_value(module, target.value)
    if isinstance(target, cst.AssignTarget):
        return kind_of_value(module, cst.ensure_type(module.parents[target], cst.Assign).value)
    return Kind.UNKNOWN
