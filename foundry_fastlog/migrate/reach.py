"""Which functions run before a program's main block, elsewhere, or where their output is read.

The call that sets up logging stands in the main block: what is said before it, or in processes that
do not run it, would not show. And what a program reads from its own output must stay there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

import libcst as cst

from foundry_fastlog.migrate.entry_point import MainBlock
from foundry_fastlog.migrate.module import Module

__all__ = ["early_functions", "redirected", "worker_functions"]

_Function = cst.FunctionDef
_PROCESSES = ("multiprocessing", "concurrent.futures", "joblib", "billiard", "loky")
_REDIRECTIONS = {"contextlib.redirect_stdout", "contextlib.redirect_stderr"}
_STARTERS = ("ThreadPoolExecutor", "ThreadPool")  # these have the program's logging


def early_functions(module: Module, main: MainBlock) -> set[_Function]:
    """Return the functions that a module calls before its main block.

    Args:
        module: The module.
        main: Its main block.
    """
    own = _Own(module.tree)
    before = [one for one in module.tree.body if module.start(one) < main.start]
    return own.reached(chain.from_iterable(map(_used_in, before)))


def worker_functions(module: Module, source: str) -> set[_Function]:
    """Return the functions that a module gives to worker processes, with what these call.

    Any function that is passed to a call counts, in a module that imports what starts processes.

    Args:
        module: The module.
        source: Its text.
    """
    finder = _Imports()
    module.tree.visit(finder)
    starts = any(one.partition(".")[0] in _PROCESSES or one in _PROCESSES for one in finder.found)
    starts |= "torch.multiprocessing" in finder.found
    if not starts or (
        "Process" not in source and "Parallel" not in source and "Pool" not in source
    ):
        return set()
    return _Own(module.tree).reached(_passed_in(module.tree))


def redirected(module: Module) -> tuple[set[cst.CSTNode], set[_Function]]:
    """Return where a module takes its own output.

    Args:
        module: The module.

    Returns:
        The blocks in which it does, or what encloses a redirection that is not simply a block's;
        and the functions that are called in them, or given to a call.
    """
    finder = _Redirections(module)
    module.tree.visit(finder)
    names = [name for block in finder.found for name in (*_used_in(block), *_passed_in(block))]
    return finder.found, _Own(module.tree).reached(names)


class _Redirections(cst.CSTVisitor):
    def __init__(self, module: Module) -> None:
        self.found: set[cst.CSTNode] = set()
        self._module = module

    def visit_Call(self, node: cst.Call) -> None:
        if not self._module.qualified(node.func) & _REDIRECTIONS:
            return
        item = self._module.parents[node]
        ancestors = self._module.ancestors(node)
        kinds = cst.With if isinstance(item, cst.WithItem) else cst.FunctionDef | cst.Module
        self.found.add(next(outer for outer in ancestors if isinstance(outer, kinds)))


class _Own(cst.CSTVisitor):
    """A module's functions and methods, by name; those of a class also by the class's name."""

    def __init__(self, tree: cst.Module) -> None:
        self._named: dict[str, list[_Function]] = {}
        self._classes: list[str] = []
        tree.visit(self)

    def visit_ClassDef(self, node: cst.ClassDef) -> None:
        self._classes.append(node.name.value)

    def leave_ClassDef(self, original_node: cst.ClassDef) -> None:  # noqa: ARG002 - LibCST's protocol
        self._classes.pop()

    def visit_FunctionDef(self, node: _Function) -> None:
        name = node.name.value
        self._named.setdefault(name, []).append(node)
        if self._classes and name.startswith("__") and name not in ("__repr__", "__str__"):
            self._named.setdefault(self._classes[-1], []).append(node)  # who makes one calls these

    def reached(self, names: Iterable[str]) -> set[_Function]:
        """Return the functions of these names, and those that they call."""
        found: set[_Function] = set()
        waiting = list(names)
        while waiting:
            for function in self._named.get(waiting.pop(), ()):
                if function not in found:
                    found.add(function)
                    waiting += _used_in(function.body)
        return found


def _used_in(node: cst.CSTNode) -> Iterator[str]:
    """Yield the names that code calls, or decorates with, as it runs; its functions do not run."""
    calls = _Calls()
    node.visit(calls)
    yield from calls.found


def _passed_in(node: cst.CSTNode) -> Iterator[str]:
    """Yield the names that code gives to calls."""
    passed = _Passed()
    node.visit(passed)
    yield from passed.found


class _Calls(cst.CSTVisitor):
    def __init__(self) -> None:
        self.found: list[str] = []

    def _note(self, node: cst.BaseExpression) -> None:
        if isinstance(node, cst.Name):
            self.found.append(node.value)
        elif isinstance(node, cst.Attribute):
            self.found.append(node.attr.value)

    def visit_Call(self, node: cst.Call) -> None:
        self._note(node.func)

    def visit_FunctionDef(self, node: _Function) -> bool:
        for decorator in node.decorators:
            self._decorated(decorator)
        return False

    def visit_ClassDef(self, node: cst.ClassDef) -> None:
        for decorator in node.decorators:
            self._decorated(decorator)

    def _decorated(self, decorator: cst.Decorator) -> None:
        self._note(decorator.decorator)
        decorator.visit(self)

    def visit_Lambda(self, node: cst.Lambda) -> bool:  # noqa: ARG002 - LibCST's protocol
        return False


class _Passed(cst.CSTVisitor):
    """Collects the names that are given to calls."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def visit_Call(self, node: cst.Call) -> None:
        function = node.func
        name = function.attr if isinstance(function, cst.Attribute) else function
        if isinstance(name, cst.Name) and name.value in _STARTERS:
            return
        for argument in node.args:
            value = argument.value
            if isinstance(value, cst.Name):
                self.found.append(value.value)
            elif isinstance(value, cst.Attribute):
                self.found.append(value.attr.value)


class _Imports(cst.CSTVisitor):
    """Collects the modules that are imported."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def visit_Import(self, node: cst.Import) -> None:
        self.found += [_dotted(alias.name) for alias in node.names]

    def visit_ImportFrom(self, node: cst.ImportFrom) -> None:
        if node.module is not None:
            module = _dotted(node.module)
            names = [] if isinstance(node.names, cst.ImportStar) else node.names
            self.found += [module, *(f"{module}.{_dotted(alias.name)}" for alias in names)]


def _dotted(node: cst.BaseExpression) -> str:
    if isinstance(node, cst.Attribute):
        return f"{_dotted(node.value)}.{node.attr.value}"
    return node.value if isinstance(node, cst.Name) else ""
