"""The program in a text that a model wrote: fenced blocks of code, of which one is meant."""

from __future__ import annotations

import ast
import builtins
import re
import textwrap
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

_FENCE = re.compile(
    r"^(?P<indent>[ \t]{0,40}(?:[-*+>]|\d{1,9}[.)])?[ \t]{0,12})"
    r"(?P<mark>`{3,}|~{3,})[ \t]*(?P<info>[^`\n]*)$"
)
# A block in Python that begins behind words on a line.
_BEHIND_WORDS = re.compile(
    r"^[^`]*\S[ \t]*(?P<mark>`{3,})[ \t]*(?P<info>python3?|py3?)[ \t]*$", re.IGNORECASE
)
_DEEPER = 4
"""Columns beyond a block's fence from which a fence in it is its own, of a docstring's example."""
_PROMPT = re.compile(r"^(?:>>>|\.\.\.)(?: |$)")
_BEGINS = re.compile(r"(?:import|from|async +def|def|class|@\w|[A-Za-z_]\w* *=(?!=))")
_MOST_LINES = 1000
_MOST_STARTS = 40
_PYTHON = frozenset({"python", "py", "python3", "py3", "ipython", "pycon"})


@dataclass(frozen=True)
class _Block:
    """A fenced block: the language that it names in lower case, and its code."""

    language: str
    code: str

    @property
    def python(self) -> bool:
        """Whether the block may hold Python, by the language that it names."""
        return self.language in _PYTHON or not self.language


def program_in(text: str, wanted: Collection[str] = ()) -> str:
    """The program in ``text``: what one of its fenced blocks holds, or all of it without blocks;
    but where words stand around a program without a fence, that program.

    Of several blocks that is the first in Python, else the first; but where blocks define names
    that are ``wanted`` (the function under test), the first of those that define most, after those
    other Python blocks that define what is still missing. A block that is not closed goes to the
    end, and one inside a list loses the list's indentation. Other lines keep theirs: a completion
    of a function's body begins with some.
    """
    blocks = list(_blocks(text))
    if not blocks:
        return _among_words(text, wanted) or text
    candidates = (
        [block for block in blocks if block.language in _PYTHON]
        or [block for block in blocks if not block.language]
        or blocks
    )
    defining = max((*candidates, *blocks), key=lambda block: len(_defined(block.code) & {*wanted}))
    if not _defined(defining.code) & {*wanted}:
        return candidates[0].code
    return _completed(defining, [each for each in blocks if each.python], wanted)


def names_missing_in(program: str) -> frozenset[str]:
    """Names that a program uses and nothing in it defines; none where it can't be parsed."""
    tree = _tree(program)
    if tree is None:
        return frozenset()
    nodes = list(ast.walk(tree))
    used = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    known = {n.id for n in nodes if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)}
    known |= {n.arg for n in nodes if isinstance(n, ast.arg)}
    for node in nodes:
        known |= _names_of(node)
    return frozenset(used - known - set(dir(builtins)))


def _blocks(text: str) -> Iterator[_Block]:
    lines = text.splitlines(keepends=True)
    at = 0
    while at < len(lines):
        opening = _opening(lines[at])
        at += 1
        if opening is None:
            continue
        mark, begin = opening["mark"], at
        indent = opening.groupdict().get("indent") or ""
        closing = re.compile(
            rf"(?P<indent>[ \t>]*){re.escape(mark[0])}{{{len(mark)},}}(?:[ \t].*)?$"
        )
        width, following = len(indent.expandtabs()) + _DEEPER, False
        while at < len(lines):
            line = lines[at].rstrip("\r\n")
            closed = closing.match(line)
            # Another block in Python begins where one was left open.
            following = _is_python(_FENCE.match(line), mark)
            if following or (closed and len(closed["indent"].expandtabs()) < width):
                break
            at += 1
        code = _dedented(lines[begin:at], indent)
        yield _Block(_language(opening), _without_prompts(code))
        at += not following


def _opening(line: str) -> re.Match[str] | None:
    line = line.rstrip("\r\n")
    return _FENCE.match(line) or _BEHIND_WORDS.match(line)


def _language(opening: re.Match[str]) -> str:
    words = opening["info"].strip("{} .").split()
    return words[0].lower() if words else ""


def _is_python(opening: re.Match[str] | None, mark: str) -> bool:
    return opening is not None and opening["mark"] == mark and _language(opening) in _PYTHON


def _without_prompts(code: str) -> str:
    """The input of an interpreter's session, without what it printed; other code as it is."""
    if not code.lstrip().startswith(">>> "):
        return code
    lines = textwrap.dedent(code).splitlines()
    return "".join(f"{_PROMPT.sub('', line)}\n" for line in lines if _PROMPT.match(line))


def _among_words(text: str, wanted: Collection[str]) -> str:
    """The program that defines ``wanted`` names in a text that is no program as a whole, from its
    first line to the last with which it can be parsed; empty where there is none.
    """
    lines = text.splitlines(keepends=True)
    if not wanted or len(lines) > _MOST_LINES or _tree(text) is not None:
        return ""
    starts = [at for at, line in enumerate(lines) if _BEGINS.match(line)]
    ends = [at for at, line in enumerate(lines) if line.strip() and not line[0].isspace()]
    for start in starts[:_MOST_STARTS]:
        for end in [*ends, len(lines)][::-1][:_MOST_STARTS]:
            code = "".join(lines[start:end])
            if end > start and _tree(code) is not None:
                if _defined(code) & {*wanted}:
                    return code
                break
    return ""


def _dedented(lines: Sequence[str], indent: str) -> str:
    """``lines`` without the indentation of the fence around them, or of all of them if less."""
    if indent.lstrip().startswith(">"):
        return "".join(re.sub(r"^[ \t]*>[ \t]?", "", line) for line in lines)
    width = len(indent.expandtabs())
    if not width:
        return "".join(lines)
    filled = [line for line in lines if line.strip()]
    common = min((len(line) - len(line.lstrip(" \t")) for line in filled), default=0)
    cut = min(width, common)
    return "".join(line[cut:] if line.strip() else line.lstrip(" \t") for line in lines)


def _tree(code: str) -> ast.Module | None:
    try:
        return ast.parse(textwrap.dedent(code))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _defined(code: str) -> set[str]:
    """Names that ``code`` defines at its top level."""
    tree = _tree(code)
    if tree is None:  # cut short, or not Python: what its lines seem to define
        return set(re.findall(r"^(?:async +)?(?:def|class) +(\w+)", code, re.MULTILINE))
    return set().union(*map(_names_of, tree.body))


def _names_of(node: ast.AST) -> set[str]:
    """Names that a statement defines, itself and not by what is inside it."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        found = (each for target in targets for each in ast.walk(target))
        return {each.id for each in found if isinstance(each, ast.Name)}
    return set()


def _completed(block: _Block, others: Sequence[_Block], wanted: Collection[str]) -> str:
    """The block's code after that of others that define names which it needs."""
    chosen = [block]
    while True:
        code = "\n".join(each.code for each in chosen)
        missing = (names_missing_in(code) | {*wanted}) - _defined(code)
        helper = next(
            (
                each
                for each in others
                if each not in chosen and _tree(each.code) and missing & _defined(each.code)
            ),
            None,
        )
        if helper is None:
            break
        chosen.insert(0, helper)
    return "\n".join(each.code.rstrip("\n") + "\n" for each in chosen) if chosen[1:] else block.code
