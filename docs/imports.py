"""Who imports whom inside Morphing: read from the source, checked by a test, drawn as a picture.

    python docs/imports.py            # write docs/imports.svg
    python docs/imports.py --check    # say whether the picture is what the source says

Every import counts: those inside functions and those for type checkers only too.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from html import escape
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
PACKAGE = CHECKOUT / "morphing"
PICTURE = Path(__file__).with_suffix(".svg")

FLOORS = (
    ("cli",),
    ("ui",),
    ("jobs",),
    ("publishing",),
    ("runs",),
    ("search", "matching"),
    ("merging", "benchmarks"),
    ("sources",),
    ("zoo",),
)
"""The rooms from the top floor down; a room imports only what is below it."""

Graph = Mapping[str, frozenset[str]]


def module_name(path: Path) -> str:
    """The dotted name of a file of the package, ``morphing`` left out."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def names_imported(path: Path) -> Iterator[str]:
    """Every module or member that a file imports, as written, of any package."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level or not node.module:
                raise ValueError(f"{path}: a relative import; write the whole name")
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def imports() -> Graph:
    """By each module of the package: the modules of the package that it imports."""
    paths = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
    found: dict[str, set[str]] = {name: set() for name in paths}
    for name, path in paths.items():
        for imported in names_imported(path):
            if not imported.startswith("morphing."):
                continue
            target = imported.removeprefix("morphing.")
            while target and target not in paths:
                target = target.rpartition(".")[0]
            if target and target != name:
                found[name].add(target)
    return {name: frozenset(targets) for name, targets in found.items()}


def circles(graph: Graph) -> list[list[str]]:
    """Groups of modules that all reach each other (Tarjan's algorithm); a tidy package has none."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for target in sorted(graph[name]):
            if target not in index:
                visit(target)
                low[name] = min(low[name], low[target])
            elif target in stack:
                low[name] = min(low[name], index[target])
        if low[name] == index[name]:
            group = [stack.pop()]
            while group[-1] != name:
                group.append(stack.pop())
            if len(group) > 1:
                found.append(sorted(group))

    for name in sorted(graph):
        if name not in index:
            visit(name)
    return found


def room(module: str) -> str:
    """The room a module lies in: the first part of its name."""
    return module.partition(".")[0]


# --- the picture ---------------------------------------------------------------------------------

_WIDTH, _MARGIN, _GAP = 1180, 20, 40
_LINE, _COLUMN, _HEAD = 15, 126, 26

Box = tuple[float, float, float, float]
"""Left, top, width and height."""


def picture() -> str:
    """The rooms on their floors with their files in them, as SVG.

    Each room says which it imports; an arrow is drawn where no other room lies between the two.
    """
    graph = imports()
    files: dict[str, list[str]] = defaultdict(list)
    below: dict[str, set[str]] = defaultdict(set)
    for name, targets in graph.items():
        top, _, rest = name.partition(".")
        files[top].append(rest)
        below[top] |= {room(target) for target in targets} - {top}
    known = [name for floor in FLOORS for name in floor]
    boxes: dict[str, Box] = {}
    parts: list[str] = []
    y = float(_MARGIN + 24)
    for floor in FLOORS:
        x, height = float(_MARGIN), 0.0
        for name, width in zip(floor, _shares([len(files[n]) for n in floor]), strict=True):
            targets = [other for other in known if other in below[name]]
            content, tall = _room(name, sorted(filter(None, files[name])), targets, (x, y), width)
            boxes[name] = (x, y, width, tall)
            parts.append(content)
            x, height = x + width + _GAP, max(height, tall)
        y += height + _GAP
    others = sorted(name for name in files if name and name not in known)
    content, tall = _room("everybody's", others, [], (_MARGIN, y), _WIDTH - 2 * _MARGIN)
    parts.append(content)
    arrows = [
        _arrow(boxes[name], boxes[target])
        for name in known
        for target in known
        if target in below[name] and not any(target in below[other] for other in below[name])
    ]
    height = y + tall + _MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}"'
        ' font-family="ui-sans-serif, system-ui, sans-serif">\n'
        f"<title>Who imports whom in Morphing: {len(graph)} files, no circle, nothing upwards"
        "</title>\n<style>.room{fill:#f6f7fb;stroke:#8a94ad}.name{font-weight:600;font-size:14px}"
        ".uses{font-size:11px;fill:#5b6aa0}.pack{font-weight:600;font-size:11px;fill:#3b4a77}"
        ".file{font-size:11px;fill:#333}.arrow{stroke:#5b6aa0;fill:none}</style>\n"
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7"'
        ' markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" fill="#5b6aa0"/></marker></defs>\n'
        f'<rect width="{_WIDTH}" height="{height:.0f}" fill="#ffffff"/>\n'
        f'<text x="{_MARGIN}" y="{_MARGIN + 8}" font-size="12" fill="#555">A room imports the rooms'
        " beside its name, and what is everybody's. Made by docs/imports.py.</text>\n"
        + "\n".join(arrows + parts)
        + "\n</svg>\n"
    )


def _shares(counts: list[int]) -> list[float]:
    """Widths of a floor's rooms, by how many files they have."""
    whole = _WIDTH - 2 * _MARGIN - _GAP * (len(counts) - 1)
    return [whole * count / sum(counts) for count in counts]


def _room(
    name: str, files: list[str], targets: list[str], corner: tuple[float, float], width: float
) -> tuple[str, float]:
    """A room's box and its height: first its own files in rows, then its packages side by side."""
    x, y = corner
    packages: dict[str, list[str]] = defaultdict(list)
    for file in files:
        if not any(other.startswith(f"{file}.") for other in files):
            package, _, rest = file.rpartition(".")
            packages[package].append(rest)
    columns = max(int((width - 12) // _COLUMN), 1)
    own = packages.pop("", [])
    out = _grid(own, x, y + _HEAD, columns)
    top = y + _HEAD + _LINE * _rows(own, columns) + (6 if packages else 0)
    each = max(1, columns // max(len(packages), 1))
    abreast = max(1, columns // each)
    names = sorted(packages)
    for start in range(0, len(names), abreast):
        shown = names[start : start + abreast]
        for place, package in enumerate(shown):
            left = x + place * each * _COLUMN
            out.append(_text(left + 12, top + _LINE, f"{package}/", "pack"))
            out += _grid(packages[package], left, top + _LINE, each)
        top += _LINE * (1 + max(_rows(packages[package], each) for package in shown)) + 6
    height = top + 12 - y
    size = f'x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{height:.0f}"'
    head = [f'<rect class="room" {size} rx="8"/>', _text(x + 12, y + 20, name, "name")]
    if targets:
        head.append(_text(x + 24 + 9 * len(name), y + 20, f"→ {', '.join(targets)}", "uses"))
    return "\n".join([*head, *out]), height


def _rows(files: list[str], columns: int) -> int:
    return -(-len(files) // columns)


def _grid(files: list[str], x: float, y: float, columns: int) -> list[str]:
    """The names, filling one column after another."""
    rows = max(_rows(files, columns), 1)
    return [
        _text(x + 12 + place // rows * _COLUMN, y + (place % rows + 1) * _LINE, file, "file")
        for place, file in enumerate(sorted(files))
    ]


def _text(x: float, y: float, text: str, style: str) -> str:
    return f'<text class="{style}" x="{x:.0f}" y="{y:.0f}">{escape(text)}</text>'


def _arrow(start: Box, end: Box) -> str:
    """A line from the bottom of one box to the top of another, as upright as the boxes allow."""
    left, right = max(start[0], end[0]), min(start[0] + start[2], end[0] + end[2])
    middle = (left + right) / 2
    if left > right:
        return _line(start[0] + start[2] / 2, start[1] + start[3], end[0] + end[2] / 2, end[1])
    return _line(middle, start[1] + start[3], middle, end[1])


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    ends = f'd="M{x1:.0f} {y1:.0f}L{x2:.0f} {y2 - 1:.0f}"'
    return f'<path class="arrow" marker-end="url(#tip)" {ends}/>'


def main() -> None:
    """Write the picture, or check it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if it differs")
    made = picture()
    if parser.parse_args().check:
        if not PICTURE.exists() or PICTURE.read_text(encoding="utf-8") != made:
            sys.exit("docs/imports.svg is not what the source says: run python docs/imports.py.")
        return
    PICTURE.write_text(made, encoding="utf-8")


if __name__ == "__main__":
    main()
