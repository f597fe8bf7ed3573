"""Binder's environment has what the notebooks import, in versions that the book was made with."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# Packages of conda-forge that have another name than on the package index.
RENAMED = {"pytorch-cpu": "torch", "matplotlib-base": "matplotlib"}
# Modules that have another name than their package; IPython comes with JupyterLab.
MODULES = {"sklearn": "scikit-learn", "IPython": "jupyterlab"}


def by_name(lines: list[str]) -> dict[str, Requirement]:
    """Requirements by the name of the package on the index."""
    found = {}
    for line in lines:
        requirement = Requirement(re.sub(r"(?<![=<>~!])=(?!=)", "==", line))  # conda's single =
        name = canonicalize_name(requirement.name)
        found[RENAMED.get(name, name)] = requirement
    return found


def environment() -> dict[str, Requirement]:
    """What binder/environment.yml installs, by conda and by pip."""
    listed = yaml.safe_load((ROOT / "binder" / "environment.yml").read_text(encoding="utf-8"))
    conda = [each for each in listed["dependencies"] if isinstance(each, str)]
    pip = [line for each in listed["dependencies"] if isinstance(each, dict)
           for line in each["pip"]]
    return by_name(conda + pip)


def pinned() -> dict[str, str]:
    """The versions of requirements.txt by package."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pins}


def project() -> dict[str, Requirement]:
    """What pyproject.toml says that gptlib and the notebooks need."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return by_name(table["dependencies"] + table["optional-dependencies"]["book"])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_binder_installs_what_a_notebook_imports(path):
    cells = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    roots = set()
    for node in ast.walk(ast.parse(cells[1].source)):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            roots.add(node.module.split(".")[0])
    needed = {MODULES.get(root, root) for root in roots - sys.stdlib_module_names - {"gptlib"}}
    assert needed <= set(environment()), f"missing: {sorted(needed - set(environment()))}"


def test_binder_installs_what_the_package_needs_itself():
    # binder/postBuild installs gptlib with --no-deps.
    assert set(project()) <= set(environment())


def test_the_versions_are_those_of_the_book():
    versions = pinned()
    for name, requirement in environment().items():
        if name in versions:
            assert requirement.specifier.contains(versions[name]), (
                f"{requirement}; requirements.txt has {versions[name]}")


def test_no_older_version_is_allowed_than_the_package_takes():
    for name, requirement in project().items():
        lowest = [each.version for each in environment()[name].specifier if each.operator != "<"]
        for version in lowest:
            assert requirement.specifier.contains(version), f"{name} {version}; {requirement}"
