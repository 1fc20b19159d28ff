"""Finds assertions that a slow machine could break: those that compare a time with a number.

Comes in: the source of a test. Goes out: the lines. By its syntax and its names alone, so it errs now and then; a time may be compared with
another one of the same run.
"""

from __future__ import annotations

import ast
import re

CLOCKS = {"time", "perf_counter", "monotonic", "process_time", "thread_time", "getrusage", "times", "default_timer"}
CLOCKS |= {f"{name}_ns" for name in CLOCKS}
MODULES = {"time", "resource", "timeit", "os"}
"""Whose functions of those names are clocks; without a module they count, too."""
NAMED = re.compile(r"(^|_)(seconds|elapsed|took|latency|duration|ms|milliseconds|utime|stime)(_|$)")
ORDER = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
PATIENCE = 30
"""Seconds: a shorter limit of a wait that is asserted to have ended is a claim about time, a longer one only ends a test that hangs."""


def timed_assertions(source: str) -> list[int]:
    """Return the lines of assertions that compare a time with a number.

    >>> timed_assertions("begin = perf_counter()\\nrun.stop()\\nassert perf_counter() - begin < 0.5")
    [3]
    >>> timed_assertions("begin = perf_counter()\\nend = perf_counter()\\nassert end > begin")
    []
    """
    tree = ast.parse(source)
    whole = _timed_names(tree, set())
    found: set[int] = set()
    for scope in ast.walk(tree):
        if isinstance(scope, (ast.FunctionDef, ast.AsyncFunctionDef)):
            names = _timed_names(scope, whole)
            found |= {node.lineno for node in ast.walk(scope) if isinstance(node, ast.Assert) and _is_timed(node.test, names)}
    found |= {node.lineno for node in tree.body if isinstance(node, ast.Assert) and _is_timed(node.test, whole)}
    return sorted(found)


def _timed_names(scope: ast.AST, known: set[str]) -> set[str]:
    """Names that hold a time: assigned from a clock, from a script of a page that reads one, or from such a name."""
    names, before = set(known), -1
    body = scope.body if isinstance(scope, ast.Module) else list(ast.walk(scope))
    while before != len(names):
        before = len(names)
        for node in body:
            if isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)) and node.value is not None and _holds_time(node.value, names):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names |= {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return names


def _holds_time(node: ast.AST, names: set[str]) -> bool:
    return any(_is_time(part, names) for part in ast.walk(node))


def _is_time(node: ast.AST, names: set[str]) -> bool:
    if isinstance(node, ast.Call):
        function = node.func
        if isinstance(function, ast.Attribute):
            return function.attr in CLOCKS and isinstance(function.value, ast.Name) and function.value.id in MODULES
        return isinstance(function, ast.Name) and function.id in CLOCKS - {"time", "times"}
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str) and "performance.now" in node.value
    return isinstance(node, ast.Name) and node.id in names


def _is_timed(test: ast.expr, names: set[str]) -> bool:
    """Whether an assertion orders a time and a number, or waits for something too briefly."""
    for node in ast.walk(test):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            for operator, *pair in zip(node.ops, sides, sides[1:], strict=False):
                times = [side for side in pair if _holds_time(side, names) or _is_named_time(side)]
                if isinstance(operator, ORDER) and times and any(_is_number(side) for side in pair):
                    return True
    calls = [test, *test.values] if isinstance(test, ast.BoolOp) else [test.operand if isinstance(test, ast.UnaryOp) else test]
    return any(isinstance(call, ast.Call) and _is_short_wait(call) for call in calls)


def _is_short_wait(call: ast.Call) -> bool:
    limits = [value.value for value in [*call.args, *(keyword.value for keyword in call.keywords)] if isinstance(value, ast.Constant)]
    waits = isinstance(call.func, ast.Attribute) and call.func.attr == "wait"
    return waits and any(isinstance(limit, (int, float)) and limit < PATIENCE for limit in limits)


def _is_named_time(node: ast.AST) -> bool:
    """Whether a value is called a time: a name, an attribute, or a key."""
    for part in ast.walk(node):
        name = part.id if isinstance(part, ast.Name) else part.attr if isinstance(part, ast.Attribute) else ""
        if isinstance(part, ast.Subscript) and isinstance(part.slice, ast.Constant):
            name = str(part.slice.value)
        if NAMED.search(name):
            return True
    return False


def _is_number(node: ast.expr) -> bool:
    """Whether a value is written down: other numbers than nought, and names of constants."""
    if isinstance(node, ast.BinOp):
        return _is_number(node.left) and _is_number(node.right)
    if isinstance(node, ast.Name):
        return node.id.isupper()
    return isinstance(node, ast.Constant) and isinstance(node.value, (int, float)) and node.value != 0
