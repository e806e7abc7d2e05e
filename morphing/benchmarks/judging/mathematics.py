r"""Whether two answers in LaTeX are the same: ``\frac12`` and ``0.5``, ``x+1`` and ``1 + x``."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from morphing.benchmarks.judging.answers import last_boxed
from morphing.benchmarks.judging.numbers import normalise, read_number
from morphing.errors import MorphingError

_LONGEST = 1000  # characters; longer answers are compared as they are written

# Characters that stand for what LaTeX has commands for; math-verify knows few of them.
_COMMANDS = str.maketrans(
    {
        **{"≤": r"\le ", "⩽": r"\le ", "≥": r"\ge ", "⩾": r"\ge ", "≠": r"\ne ", "≈": r"\approx "},
        **{"∞": r"\infty ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset "},
        **{"±": r"\pm ", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": r"\div "},
        **{"ℝ": r"\mathbb{R}", "∖": r"\setminus ", "π": r"\pi ", "θ": r"\theta "},
        **{"α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ", "φ": r"\phi ", "λ": r"\lambda "},
        "…": r"\dots ",
    }
)

_PLAINER: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^\s*(?:\\\[|\\\()(.*?)(?:\\\]|\\\))\s*$", r"\1"),
        (r"\$", ""),
        (r"√\s*(?:\(([^()]*)\)|(\w+))", r"\\sqrt{\1\2}"),
        ("\u202f", ""),
        (r"\\(?:displaystyle|textstyle|left|right|q?quad|[bB]igg?[lr]?)(?![a-zA-Z])", ""),
        (r"(?<!\\)\\[!,;: ]|~", " "),
        (r"(?<=\d)\s*(?:\^\s*\{?\s*\\circ\s*\}?|\\degree(?![a-zA-Z])|°)", r"\\degree "),
        (r"(?<=\\\\)\[-?[\d.]+\s*(?:pt|em|ex|mm|cm)\]", ""),  # space between a matrix's rows
        (r"^\s*(?:\\approx|=)(?![a-zA-Z])|^\s*\\sim(?![a-zA-Z])", ""),
        (r"\\approx(?![a-zA-Z])", "="),
        (r"\\colon(?![a-zA-Z])", ":"),
        (r"\\varnothing(?![a-zA-Z])", r"\\emptyset"),
        (r"\\langle(?![a-zA-Z])", "("),
        (r"\\rangle(?![a-zA-Z])", ")"),
        (r"\\(vec|hat|bar|frac)\s+([a-zA-Z])(?![a-zA-Z]{2})", r"\\\1{\2}"),
        (r"\\frac\s*(\\[a-zA-Z]+)\s*([a-zA-Z\d])", r"\\frac{\1}{\2}"),
        (r"(\\frac\{[a-zA-Z]\})\s*([a-zA-Z\d])", r"\1{\2}"),
        (r"\](?=[^\[\]()]*,[^\[\]()]*[\[\])])", "("),  # ]0,1[ is (0,1)
        (r"(?<=[(\[])([^\[\]()]*,[^\[\]()]*)\[", r"\1)"),
        (r"^(-?\d{1,3}(?: \d{3})+(?:\.\d+)?)$", lambda found: found[1].replace(" ", "")),
        (r"\\[dt]binom", r"\\binom"),
        (r"\\binom\s*(\d)\s*(\d)", r"\\binom{\1}{\2}"),
        (r"(?<![\w.\\])(\d+(?:\.\d+)?)[eE]([-+]?\d+)(?!\w)", r"\1\\times10^{\2}"),
        (r"(?<![\w.}^])(\d+) +(\d+)/(\d+)(?![\w/])", r"\1\\frac{\2}{\3}"),
        (
            r"\\(?:mathrm|mathbf|mathit|textbf|textit|textrm|textsf|mbox|underline)\s*\{",
            r"\\text{",
        ),
        # Numbers and equations that were written as text.
        (r"^\s*\\text\s*\{\s*([-+$\d][^{}]*|[^{}]*=[^{}]*)\}\s*$", r"\1"),
        # A unit behind a number, which the problem names.
        (
            r"(?<=[\d})])\s*(?:square |cubic )?(?:degrees?|units?|dollars?|cents?|met(?:er|re)s?"
            r"|(?:k?m|mi|miles?|met(?:er|re)s?)(?:/| per )(?:s|sec|h|hr|hours?|seconds?)|mph|kph"
            r"|[cmk]m|kg|pounds?|lbs|grams?|lit(?:er|re)s?|yards?|weeks?|months?|inches|inch|feet|foot|miles?|hours?|minutes?|seconds?|days?|years?)"
            r"(?:\s*\^\s*\{?\d\}?)?\s*$",
            "",
        ),
    )
)
_TRIGONOMETRY = re.compile(r"\\?(?:sin|cos|tan|cot|sec|csc)(?![a-zA-Z])")
_PERCENT = re.compile(r"\s*(?:\\?%|(?<=\d)\s*percent)\s*$", re.IGNORECASE)
_IN_BASE = re.compile(r"(\w+)_\{?(\d+)\}?")
_WORDS = re.compile(r"[^\W\d_]+(?:[\s'’-]+[^\W\d_]+)*")
_REPEATING = re.compile(
    r"(?<![\w.])(\d+)\.(\d*?)(?:\\(?:overline|bar|dot)\s*(?:\{(\d+)\}|(\d))|\((\d+)\)"
    r"|(\d+?)\6{2,}(?:\.{3}|\\[lc]?dots(?![a-zA-Z])))"
)


def same_answer(answer: str, target: str) -> float:
    """1 if both say the same up to how it is written, else 0.

    Numbers are compared exactly, a percent both as its number and as a hundredth of it, words
    without case, anything else by math-verify (`verifier`) in a process of its own: what a model
    makes up may take a few seconds of processor time, then it is wrong; none of it is run.

    Raises:
        MorphingError: math-verify cannot be started.
    """
    return float(_same(answer[: 100 * _LONGEST], target))


@lru_cache(maxsize=4096)
def _same(answer: str, target: str) -> bool:
    one, two = plain(answer), plain(target)
    if not one or not two:
        return False
    if one == two:
        return True
    if max(len(one), len(two)) > _LONGEST:
        return False
    said, wanted = _readings(one), _readings(two)
    (number, *_), (goal, *_) = said, wanted
    if r"\text" in one + two and _unspaced(one) == _unspaced(two):
        return True
    if _is_word(one) or _is_word(two):
        return _word(one) == _word(two)
    if (based := _IN_BASE.fullmatch(one)) and (base := _IN_BASE.fullmatch(two)):
        return based.groups() == base.groups()
    pairs = [(b, a) for a in said for b in wanted]
    if len(said) == len(wanted) == 2:  # both in percent
        pairs = [(goal, number)]
    numbers = [(read_number(b), read_number(a)) for b, a in pairs]
    if all(a is not None and b is not None for a, b in numbers):
        return any(a == b for a, b in numbers)
    return _VERIFIER.equal(pairs)


def plain(text: str) -> str:
    """An answer without what only dresses it: box, dollars, spaces, sizes, units, full stop."""
    text = normalise(text).translate(_COMMANDS).strip()
    while (inside := last_boxed(text)) and re.match(r"\s*\\(?:boxed|fbox)", text):
        text = inside
    text = _REPEATING.sub(_repeating, text).rstrip(".").strip()
    degrees = _TRIGONOMETRY.search(text) is not None
    for pattern, replacement in _PLAINER:
        text = pattern.sub(replacement, text)
    text = re.sub(r"\\degree ?", r"\\cdot\\frac{\\pi}{180}" if degrees else "", text)
    return re.sub(r"\s+", " ", text).strip().rstrip(".").strip()


def _repeating(found: re.Match[str]) -> str:
    """A decimal whose last digits repeat without end, as a fraction: 0.1\\overline{6} is 1/6."""
    whole, once, *others = found.groups()
    again = next(digits for digits in others if digits is not None)
    under = (10 ** len(again) - 1) * 10 ** len(once)
    over = int(whole + once + again) - int(whole + once)
    return rf"\frac{{{over}}}{{{under}}}"


def _readings(text: str) -> list[str]:
    """What an answer may stand for: of a percent its number and a hundredth of it."""
    bare = _PERCENT.sub("", text)
    return [text] if bare == text else [bare, rf"\frac{{{bare}}}{{100}}"]


def _word(text: str) -> str:
    bare = re.sub(r"\\text\s*\{([^{}]*)\}", r" \1 ", text).strip(" ().")
    return " ".join(bare.casefold().split())


def _unspaced(text: str) -> str:
    """An answer with its texts as if they were none: "12:00PM", "a,b"."""
    return re.sub(r"\s", "", re.sub(r"\\text\s*\{([^{}]*)\}", r"\1", text)).casefold()


def _is_word(text: str) -> bool:
    """Whether an answer is words, which are no products of variables ("seat" is not "east")."""
    word = _word(text)
    marked = r"\text" in text
    # "p - q" is a difference, as is "xyz" a product.
    longest = max(re.split(r"[\s'’-]+", word), key=len)
    return bool(_WORDS.fullmatch(word)) and (
        marked or (len(longest) > 2 and not set(longest) <= set("abcxyz"))
    )


class _Verifier:
    """The process that runs `verifier`, started when first needed; one question at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._owner = 0

    def equal(self, pairs: list[tuple[str, str]]) -> bool:
        """Whether a target and an answer of any pair are equal."""
        with self._lock:
            process = self._running()
            assert process.stdin is not None and process.stdout is not None
            try:
                process.stdin.write(json.dumps(pairs) + "\n")
                process.stdin.flush()
                reply = process.stdout.readline().strip()
            except BaseException:
                self._end()  # an answer on its way would be taken for the next question's
                raise
            if reply not in ("0", "1"):
                self._end()
                raise MorphingError(
                    "The process that compares mathematical answers ended by itself, perhaps for"
                    " want of memory: free some and try again."
                )
            return reply == "1"

    def _running(self) -> subprocess.Popen[str]:
        if self._process is not None and self._owner == os.getpid():
            if self._process.poll() is None:
                return self._process
            self._end()
        process = subprocess.Popen(
            # Without the script's folder in the path: a module of it is called `numbers`.
            [sys.executable, "-P", str(Path(__file__).with_name("verifier.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # an interrupt of the terminal is ours to handle
        )
        assert process.stdout is not None and process.stderr is not None
        if process.stdout.readline().strip() != "ready":
            lines = process.stderr.read().strip().splitlines()
            process.wait()
            raise MorphingError(
                f"math-verify cannot be started ({lines[-1] if lines else 'it ended at once'}):"
                " install Morphing's requirements again (pip install 'lm-eval[math]')."
            )
        self._process, self._owner = process, os.getpid()
        return process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()


_VERIFIER = _Verifier()
