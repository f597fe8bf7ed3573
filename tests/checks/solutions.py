"""Solutions of exercises, taken from the notebooks: the code that a check's last call needs.

A notebook is not run for it. From the call `check_x(answer)` in the solution's cell the statements
are followed backwards: those that define a name which is needed are kept, all others left out.
"""

import ast
import functools
import re
import symtable
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
    """Where the solution of each check, "module.check_x", is judged: the notebook and the number
    of the statement."""
    found, module = {}, ""
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        for number, (in_solution, statement) in enumerate(statements(path)):
            if isinstance(statement, ast.ImportFrom) and "gptlib.checks" in statement.module:
                module = (statement.module + "." + statement.names[0].name).split(".")[2]
            for name in called_checks(statement) if in_solution else ():
                found.setdefault(f"{module}.{name}", (path, number))
    return found


def called_checks(statement: ast.stmt) -> dict[str, ast.expr]:
    """The checks that a statement calls, `check_x(answer)` or `checks.check_x(answer)`, and what
    it hands them."""
    calls = [node for node in ast.walk(statement) if isinstance(node, ast.Call)]
    names = [getattr(call.func, "id", getattr(call.func, "attr", "")) for call in calls]
    return {name: call.args[0] for name, call in zip(names, calls) if name.startswith("check_")}


def bound(statement: ast.stmt) -> set[str]:
    """Names that a statement gives a value, or changes in place."""
    names = {symbol.get_name() for symbol in _table(statement).get_symbols()
             if symbol.is_assigned() or symbol.is_imported()}
    for node in ast.walk(statement):  # x[0] = 1, x.a = 1
        if isinstance(node, ast.Subscript | ast.Attribute) and isinstance(node.ctx, ast.Store):
            names |= {inner.id for inner in ast.walk(node.value) if isinstance(inner, ast.Name)}
    return names


def used(node: ast.AST) -> set[str]:
    """Names that a statement takes from the notebook; variables inside a function are its own."""
    tables, names = [_table(node)], set()
    while tables:
        table = tables.pop()
        tables += table.get_children()
        names |= {symbol.get_name() for symbol in table.get_symbols() if symbol.is_referenced()
                  and (symbol.is_global() or table.get_type() == "module")}
    return names


def _table(node: ast.AST) -> symtable.SymbolTable:
    return symtable.symtable(ast.unparse(node), "notebook", "exec")


def whole(statement: ast.stmt) -> bool:
    """Whether a name that the statement binds does not depend on what stood in it before."""
    if isinstance(statement, ast.Assign):
        return not any(isinstance(node, ast.Subscript | ast.Attribute | ast.Starred)
                       for target in statement.targets for node in ast.walk(target))
    return isinstance(statement, ast.FunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom)


def solution(check: str) -> Any:
    """The answer that the notebook's solution hands to `check`, such as "attention.check_draw"."""
    path, last = places()[check]
    answer = called_checks(statements(path)[last][1])[check.split(".")[1]]
    needed, kept = used(answer), []
    for _, statement in reversed(statements(path)[:last]):
        names = bound(statement) & needed
        if names and not called_checks(statement):
            kept.append(statement)
            if whole(statement):
                needed -= names
            needed |= used(statement)
    namespace: dict[str, Any] = {"__name__": f"solution of {check}"}
    code = ast.Module(kept[::-1], type_ignores=[])
    exec(compile(code, path.name, "exec"), namespace)
    return eval(compile(ast.Expression(answer), path.name, "eval"), namespace)
