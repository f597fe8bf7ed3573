"""The book's own Sphinx extension: the table of run times, made from the recorded runs; tables and
numbers of the benchmarks, and whether they reach an aim; exercises without numbers, which would
count through the whole book; and the address of the repository, taken from _config.yml wherever a
page writes {{ repository }}."""

import json
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective, SphinxRole
from sphinx_exercise.directive import ExerciseStartDirective

ROOT = Path(__file__).resolve().parent.parent.parent
RUN_TIMES = ROOT / "book" / "run_times.json"
RESULTS = ROOT / "benchmarks" / "results"


class RunTimes(SphinxDirective):
    """`{run-times}`: one row for each chapter with its recorded time and memory, and the sum."""

    def run(self) -> list[nodes.Node]:
        """Build the table as Markdown, so that the titles are links to the chapters."""
        self.env.note_dependency(str(RUN_TIMES))
        table = json.loads(RUN_TIMES.read_text(encoding="utf-8"))
        costs = {name: cost for name, cost in table["notebooks"].items()
                 if f"notebooks/{name}" in self.env.found_docs}
        machine = table["machine"]
        lines = ["| chapter | processor seconds | seconds by the clock | peak memory in MB |",
                 "|:---|---:|---:|---:|"]
        for name, cost in costs.items():
            lines.append(f"| {{doc}}`/notebooks/{name}` | {cost['cpu_seconds']:.0f} | "
                         f"{cost['wall_seconds']:.0f} | {cost['peak_memory_mb']:,} |")
        cpu = sum(cost["cpu_seconds"] for cost in costs.values())
        wall = sum(cost["wall_seconds"] for cost in costs.values())
        lines.append(f"| all {len(costs)} notebooks | {cpu:.0f} | {wall:.0f} | |")
        lines += ["", f"Recorded on one thread of a machine with {machine['cores']} cores "
                  f"({machine['processor']}, {machine['system']}), Python {machine['python']}, "
                  f"PyTorch {machine['torch']}."]
        return self.parse_text_to_nodes("\n".join(lines))


class Benchmark(SphinxDirective):
    """`{benchmark} NAME`: a table of benchmarks/results, its note and the machine behind it."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Build the table as Markdown; columns of numbers are aligned right."""
        path = RESULTS / f"{self.arguments[0]}.json"
        self.env.note_dependency(str(path))
        table = json.loads(path.read_text(encoding="utf-8"))
        columns, rows = table["columns"], table["rows"]
        number = [all(cell[:1] in "+-0123456789" for cell in column if cell)
                  for column in zip(*rows)]
        lines = [" | ".join(columns), " | ".join("---:" if right else ":---" for right in number),
                 *map(" | ".join, rows)]
        machine = table["machine"]
        versions = ", ".join(f"{name} {version}" for name, version in list(machine.items())[6:])
        lines = [f"| {line} |" for line in lines]
        threads = f"{machine['threads']} thread" + "s" * (machine["threads"] != "1")
        lines += ["", f"Measured with `{table['command']}` on {machine['cores']} cores "
                  f"({machine['processor']}, {machine['instructions']}), {threads}, Python "
                  f"{machine['python']}, {versions}. {table['note']}"]
        parsed = self.parse_text_to_nodes("\n".join(lines))
        for node in parsed:
            node["classes"].append("benchmark")  # smaller type: see book.css
        return parsed


class Measured(SphinxRole):
    """``{measured}`NAME: fact` ``: one number of benchmarks/results, as it was measured."""

    def run(self) -> tuple[list[nodes.Node], list]:
        """The number as text."""
        return [nodes.inline("", self.fact(self.text))], []

    def fact(self, text: str) -> str:
        """Look a number up; an unknown one is an error of the page."""
        name, _, fact = text.partition(": ")
        path = RESULTS / f"{name}.json"
        self.env.note_dependency(str(path))
        facts = json.loads(path.read_text(encoding="utf-8"))["facts"]
        if fact not in facts:
            raise ValueError(f"{self.env.docname}: no fact {fact!r} in {path.name}")
        return facts[fact]


class Met(Measured):
    """``{met}`NAME: fact >= 15` ``: "yes" or "no"; for <= as well, and beside another fact."""

    def run(self) -> tuple[list[nodes.Node], list]:
        """Compare the number as it is shown: a new measurement changes the verdict too."""
        sign = ">=" if ">=" in self.text else "<="
        left, right = self.text.split(f" {sign} ")
        value = float(self.fact(left))
        aim = float(self.fact(right) if ": " in right else right)
        met = value >= aim if sign == ">=" else value <= aim
        return [nodes.inline("", "yes" if met else "no")], []


class Exercise(ExerciseStartDirective):
    """`{exercise-start}` as sphinx-exercise has it, with its option `nonumber` always set."""

    def run(self) -> list[nodes.Node]:
        """Build the box."""
        self.options["nonumber"] = None
        return super().run()


def put_repository(app: Sphinx, docname: str, source: list[str]) -> None:
    """Replace {{ repository }}, in code blocks too, by the address that _config.yml gives."""
    if docname.startswith("book/"):
        address = app.config.html_theme_options["repository_url"]
        source[0] = source[0].replace("{{ repository }}", address)


def setup(app: Sphinx) -> dict:
    """Register the directives and the replacement."""
    app.add_directive("run-times", RunTimes)
    app.add_directive("benchmark", Benchmark)
    app.add_role("measured", Measured())
    app.add_role("met", Met())
    app.add_directive("exercise-start", Exercise, override=True)
    app.connect("source-read", put_repository)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
