"""Who may import whom: docs/architecture.md, held."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from docs.imports import PICTURE, circles, imports, names_imported, picture
from docs.imports import room as room_of
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
    "matching": {"merging", "benchmarks", "sources"},
    "runs": {"search", "merging", "benchmarks", "sources", "zoo"},
    "publishing": {"runs", "search", "merging", "benchmarks", "sources", "zoo"},
    "jobs": {"publishing", "runs", "benchmarks"},
    "ui": {"jobs", "publishing", "runs", "search", "merging", "benchmarks", "sources", "zoo"},
    "cli": {
        "matching",
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
    "hub_names": set(),
    "devices": set(),
    "names": set(),
    "rendering": set(),
    "inert": set(),
    "notes": set(),
    "visitors": set(),
    "yaml_files": set(),
}
ALWAYS = {"errors", "hub_errors", "devices", "inert", "names", "visitors", "yaml_files"}
ALWAYS |= {"__version__", "hub_names", "notes", "rendering"}
OUTSIDE = {
    "gradio": {"ui"},
    "huggingface_hub": {"hub_errors", "sources", "benchmarks", "publishing", "jobs", "ui"},
    "datasets": {"benchmarks"},
}


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_downwards(path: Path) -> None:
    here = room(path)
    for name in names_imported(path):
        top, _, rest = name.partition(".")
        if top == "morphing" and rest:
            there = rest.split(".")[0]
            assert there == here or there in ALLOWED[here] | ALWAYS, f"{here} imports {name}"
        elif top in OUTSIDE:
            assert here in OUTSIDE[top], f"{here} imports {name}"


def test_no_file_imports_another_in_a_circle() -> None:
    """Imports inside functions and for type checkers count too, and what tables name."""
    graph = {name: set(targets) for name, targets in imports().items()}
    # What the table of kinds names is imported by `evaluate` as a benchmark asks for it.
    scorers = {f"benchmarks.{kind.module}" for kind in KINDS.values()}
    assert scorers <= graph.keys()
    graph["benchmarks.evaluate"] |= scorers
    assert circles({name: frozenset(targets) for name, targets in graph.items()}) == []


def test_the_scoring_engine_knows_nothing_else_of_benchmarks() -> None:
    for name, targets in imports().items():
        if name.startswith("benchmarks.engine."):
            known = ("benchmarks.engine.", "rendering.", "errors")
            strange = {target for target in targets if not target.startswith(known)}
            assert not strange, f"{name} imports {strange}"


def test_search_takes_only_recipes_and_paths_from_merging() -> None:
    light = {"merging.method", "merging.methods", "merging.recipe", "merging.paths"}
    for name, targets in imports().items():
        if room_of(name) == "search":
            assert {t for t in targets if room_of(t) == "merging"} <= light


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


def test_the_picture_is_what_the_source_says() -> None:
    """After a file was added, moved or taken away: ``python docs/imports.py`` draws it anew."""
    assert PICTURE.read_text(encoding="utf-8") == picture()
