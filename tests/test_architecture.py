"""The house rules of gptlib: rooms, sizes, documentation, and nothing that happens at import."""

import ast
import graphlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "gptlib"
FILES = sorted(PACKAGE.rglob("*.py"))
COMMANDS = sorted((ROOT / "tools").glob("*.py"))
LONGEST_FILE, LONGEST_FUNCTION, LARGEST_PACKAGE = 350, 40, 12_000
SEVERAL = ("processes",)  # tests of several modules at once

# What a room may import beside modules of its own. Every room may use the modules at the door.
DOOR = ("runtime", "plotting", "files")
ROOMS = {
    "theory": "",
    "text": "",
    "model": "",
    "writing": "model text theory",
    "formats": "model text",
    "training": "formats model text theory writing",
    "checks": "formats model text theory training writing",
}


def module_name(path: Path) -> str:
    """The name inside gptlib: "model", "checks.tokenization", "" for the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imported(path: Path) -> set[str]:
    """Names of the gptlib modules that a file imports, imports inside functions included."""
    known = {module_name(file) for file in FILES}
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: write 'from gptlib.x import y', not relative"
            names = [f"{node.module}.{alias.name}" for alias in node.names] + [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        inside = {name.removeprefix("gptlib.") for name in names if name.startswith("gptlib.")}
        found |= inside & known
    return found - {"", module_name(path)}


def room_of(name: str) -> str:
    """The room of a module: "model" for "model.gpt", "" for a module at the door."""
    return name.split(".")[0] if name.split(".")[0] in ROOMS else ""


def identify(path: Path) -> str:
    own = path.is_relative_to(PACKAGE)
    return module_name(path) or "gptlib" if own else f"{path.parent.name}/{path.name}"


@pytest.mark.parametrize("path", FILES, ids=identify)
def test_a_module_imports_only_what_its_room_may(path):
    name = module_name(path)
    if name == "__main__":
        assert not any(room_of(other) == "checks" for other in imported(path))
        return
    room = room_of(name)
    allowed = {*ROOMS.get(room, "").split(), room, ""} if room else {""}
    for other in imported(path):
        assert room_of(other) in allowed, (
            f"gptlib.{name} imports gptlib.{other}; the room {room or 'at the door'!r} may use "
            f"{', '.join(sorted(allowed - {''})) or 'nothing of the house'}")
        assert room_of(other) or other in DOOR, f"gptlib.{other} is no module at the door"


def test_every_module_stands_in_a_room_or_at_the_door():
    names = {module_name(path) for path in FILES} - {"", "__main__"}
    strangers = {name for name in names if not room_of(name)} - set(DOOR)
    assert not strangers, f"put into a room: {sorted(strangers)}"
    assert set(DOOR) | set(ROOMS) <= names, "the table names what does not exist"


def test_no_modules_import_each_other_in_a_circle():
    arrows = {module_name(path): imported(path) for path in FILES}
    rooms: dict[str, set[str]] = {}
    for name, others in arrows.items():
        here = room_of(name) or name
        rooms.setdefault(here, set()).update({room_of(o) or o for o in others} - {here})
    for graph in (arrows, rooms):  # prepare() raises CycleError, which shows the circle
        graphlib.TopologicalSorter(graph).prepare()


def test_the_tests_stand_in_the_same_rooms():
    for path in (ROOT / "tests").glob("*/test_*.py"):
        room = path.parent.name
        assert room in {*ROOMS, "tools", "benchmarks"}, f"tests/{room} mirrors no room"
        stem = path.stem.removeprefix("test_").removeprefix("fuzz_")
        own = [file.stem for file in (PACKAGE / room).glob("*.py")] if room in ROOMS else []
        if own and room != "checks" and stem not in SEVERAL:
            assert any(stem == name or stem.startswith(f"{name}_") for name in own), path


@pytest.mark.parametrize("path", [*FILES, *COMMANDS], ids=identify)
def test_a_file_can_be_read_in_one_sitting(path):
    text = path.read_text(encoding="utf-8")
    lines = len(text.splitlines())
    assert lines <= LONGEST_FILE, f"{lines} lines; at most {LONGEST_FILE}"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = node.end_lineno - node.lineno + 1
            assert length <= LONGEST_FUNCTION, (
                f"{node.name}, line {node.lineno}: {length} lines; at most {LONGEST_FUNCTION}")


def test_the_package_stays_small():
    # The checks of exercises are left out: they grow with the chapters, one file for each.
    counted = [path for path in FILES if "checks" not in path.parts]
    total = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in counted)
    assert total <= LARGEST_PACKAGE, f"gptlib has {total} lines; at most {LARGEST_PACKAGE}"


def public_definitions(tree: ast.Module):
    """Public functions and classes of a module, and public methods of its public classes."""
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    for node in tree.body:
        if isinstance(node, kinds) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from (inner for inner in node.body
                            if isinstance(inner, kinds) and not inner.name.startswith("_"))


def missing_hints(node: ast.FunctionDef) -> list[str]:
    """Names of arguments without a type hint; "return" where the result has none."""
    arguments = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
    missing = [a.arg for a in arguments if a.annotation is None and a.arg not in ("self", "cls")]
    return missing + (["return"] if node.returns is None else [])


@pytest.mark.parametrize("path", FILES, ids=identify)
def test_public_names_have_docstrings_and_type_hints(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), "the module has no docstring"
    for node in public_definitions(tree):
        where = f"{node.name}, line {node.lineno}"
        overrides = isinstance(node, ast.FunctionDef) and node.name in ("forward", "step")
        assert ast.get_docstring(node) or overrides, f"{where}: no docstring"
        if not isinstance(node, ast.ClassDef) and not exempt(path):
            assert not missing_hints(node), f"{where}: no type hint for {missing_hints(node)}"


def exempt(path: Path) -> bool:
    """Checks of exercises take whatever the reader wrote: `answer` needs no hint there."""
    return "checks" in path.parts


def test_importing_the_package_prints_nothing_and_opens_no_connection():
    modules = [f"gptlib.{module_name(path)}" for path in FILES if path.stem != "__main__"]
    program = inspect.cleandoc("""
        import importlib, socket, sys
        def refuse(*arguments, **options):
            raise AssertionError("a module opened a connection at import")
        socket.socket.connect = refuse
        for name in sys.argv[1:]:
            importlib.import_module(name.rstrip("."))
    """)
    result = subprocess.run([sys.executable, "-W", "error::SyntaxWarning", "-c", program, *modules],
                            capture_output=True, text=True, cwd=ROOT)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def tracked_files() -> list[Path]:
    """Every file of the project, as git sees it; without git there is nothing to check."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listing.stdout.split("\0") if name]


def test_no_file_names_a_package_index_host_or_somebody_s_folder():
    # The words are put together here, so that this file does not contain them.
    hosts = ["pypi" + ".org", "python" + "hosted", "npmjs" + ".org", "anaconda" + ".org"]
    folders = ["/ro" + "ot/", "/ho" + "me/", "/Us" + "ers/", "/wo" + "rk/", "/tm" + "p/"]
    for path in tracked_files():
        if "mathjax" in path.parts or not path.is_file():
            continue
        content = path.read_bytes()
        for word in hosts + folders:
            assert word.encode() not in content, f"{path.relative_to(ROOT)} contains {word!r}"
