"""Who may import whom: docs/architecture.md, held."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from morphing.benchmarks.kinds.table import KINDS

PACKAGE = Path(__file__).parents[1] / "morphing"
MODULES = sorted(p for p in PACKAGE.rglob("*.py"))

# Each room and the rooms it may import; errors and devices are everybody's.
ALLOWED = {
    "zoo": set(),
    "sources": {"zoo"},
    "merging": {"sources"},
    "benchmarks": {"zoo"},
    "search": {"merging"},
    "runs": {"search", "merging", "benchmarks", "sources", "zoo"},
    "publishing": {"runs", "search", "merging", "benchmarks", "sources", "zoo"},
    "jobs": {"publishing", "runs"},
    "ui": {"jobs", "publishing", "runs", "search", "merging", "benchmarks", "sources", "zoo"},
    "cli": {
        "ui",
        "jobs",
        "publishing",
        "runs",
        "search",
        "merging",
        "benchmarks",
        "sources",
    },
    "__main__": {"cli"},
    "__init__": set(),
    "errors": set(),
    "hub_errors": set(),
    "devices": set(),
    "inert": set(),
}
ALWAYS = {"errors", "hub_errors", "devices", "inert", "__version__"}
OUTSIDE = {
    "gradio": {"ui"},
    "huggingface_hub": {"hub_errors", "sources", "benchmarks", "publishing", "jobs", "ui"},
    "datasets": {"benchmarks"},
}


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module
            if node.module == "morphing":
                yield from (f"morphing.{alias.name}" for alias in node.names)
            else:
                yield node.module


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_downwards(path: Path) -> None:
    here = room(path)
    for name in imports(path):
        top, _, rest = name.partition(".")
        if top == "morphing" and rest:
            there = rest.split(".")[0]
            assert there == here or there in ALLOWED[here] | ALWAYS, f"{here} imports {name}"
        elif top in OUTSIDE:
            assert here in OUTSIDE[top], f"{here} imports {name}"


def module(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def file_imports(path: Path) -> set[str]:
    """The package's files that a file imports: lazily and for type checkers only counts too."""
    known = {module(each) for each in MODULES}
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else str(node.module) for name in whole}
    return found & known - {module(path)}


def test_no_file_of_benchmarks_is_in_a_circle() -> None:
    graph = {module(path): file_imports(path) for path in MODULES if room(path) == "benchmarks"}
    # What is named in the table of kinds is imported by `evaluate` as a benchmark asks for it.
    scorers = {f"morphing.benchmarks.{kind.module}" for kind in KINDS.values()}
    assert scorers <= graph.keys()
    graph["morphing.benchmarks.evaluate"] |= scorers
    list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


def test_the_scoring_engine_knows_nothing_else_of_benchmarks() -> None:
    engine = "morphing.benchmarks.engine."
    for path in (PACKAGE / "benchmarks" / "engine").glob("*.py"):
        for name in file_imports(path):
            assert name.startswith(engine) or name == "morphing.errors", f"{path.name}: {name}"


def test_search_takes_only_recipes_and_paths_from_merging() -> None:
    light = ("morphing.merging.methods", "morphing.merging.recipe", "morphing.merging.paths")
    for path in (PACKAGE / "search").rglob("*.py"):
        for name in imports(path):
            assert not name.startswith("morphing.merging") or name in light


def test_what_search_takes_from_merging_is_light() -> None:
    code = (
        "import sys, morphing.merging.paths\n"
        "print([name for name in ('torch', 'mergekit', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_rooms_are_light_to_enter() -> None:
    """What `morphing --help` reaches must not import what costs seconds."""
    heavy = [
        "torch",
        "transformers",
        "mergekit",
        "datasets",
        "gradio",
        "botorch",
        "huggingface_hub",
        "optuna",
    ]
    code = f"import sys, morphing.cli\nprint([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
