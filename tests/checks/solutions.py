"""Solutions of exercises, taken from the notebooks: the code that a check's last call needs.

A notebook is not run for it. From the call `check_x(answer)` in the solution's cell the statements
are followed backwards: those that define a name which is needed are kept, all others left out.
"""

import ast
import functools
import re
from pathlib import Path
from typing import Any

import nbformat

NOTEBOOKS = Path(__file__).resolve().parent.parent.parent / "notebooks"


@functools.cache
def statements(path: Path) -> tuple[tuple[bool, ast.stmt], ...]:
    """The top-level statements of a notebook in order; the first of each pair says whether the
    statement stands in a solution."""
    found, in_solution = [], False
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            head = cell.source.split("\n")[0]
            in_solution = (in_solution or "{solution-start}" in head) and (
                "{solution-end}" not in head)
            continue
        source = re.sub(r"^(\s*)%.*", r"\1pass", cell.source, flags=re.MULTILINE)
        found += [(in_solution, statement) for statement in ast.parse(source).body]
    return tuple(found)


@functools.cache
def places() -> dict[str, tuple[Path, int]]:
    """Where the solution of each check is judged: the notebook and the number of the statement."""
    found = {}
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        for number, (in_solution, statement) in enumerate(statements(path)):
            for name in called_checks(statement) if in_solution else ():
                found.setdefault(name, (path, number))
    return found


def called_checks(statement: ast.stmt) -> set[str]:
    return {node.func.id for node in ast.walk(statement)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            and node.func.id.startswith("check_")}


def bound(statement: ast.stmt) -> set[str]:
    """Names that a statement gives a value, or changes in place."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return {statement.name}
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).split(".")[0] for alias in statement.names}
    names = {node.id for node in ast.walk(statement)
             if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    for node in ast.walk(statement):  # x[0] = 1, x.a = 1, x += 1
        if isinstance(node, ast.Subscript | ast.Attribute) and isinstance(node.ctx, ast.Store):
            names |= {inner.id for inner in ast.walk(node.value) if isinstance(inner, ast.Name)}
    return names


def used(node: ast.AST) -> set[str]:
    return {inner.id for inner in ast.walk(node)
            if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Load)}


def solution(check: str) -> Any:
    """The answer that the notebook's solution hands to `check`, a name such as "check_draw"."""
    path, last = places()[check]
    call = next(node for node in ast.walk(statements(path)[last][1]) if isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name) and node.func.id == check)
    needed, kept = used(call.args[0]), []
    for _, statement in reversed(statements(path)[:last]):
        names = bound(statement) & needed
        if names and not called_checks(statement):
            kept.append(statement)
            if isinstance(statement, ast.FunctionDef | ast.ClassDef):
                needed -= names  # a whole definition: what stood before does not matter
            needed |= used(statement)
    namespace: dict[str, Any] = {"__name__": f"solution of {check}"}
    code = ast.Module(kept[::-1], type_ignores=[])
    exec(compile(code, path.name, "exec"), namespace)
    return eval(compile(ast.Expression(call.args[0]), path.name, "eval"), namespace)
