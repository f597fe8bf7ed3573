"""The book's own Sphinx extension: the table of run times, made from the recorded runs; exercises
without numbers, which would count through the whole book; and the address of the repository, taken
from _config.yml wherever a page writes {{ repository }}."""

import json
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx_exercise.directive import ExerciseStartDirective

RUN_TIMES = Path(__file__).resolve().parent.parent / "run_times.json"


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
    app.add_directive("exercise-start", Exercise, override=True)
    app.connect("source-read", put_repository)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
