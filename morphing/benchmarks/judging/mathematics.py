r"""Whether two answers in LaTeX are the same: ``\frac12`` and ``0.5``, ``x+1`` and ``1 + x``."""

import cmath
import re
from collections.abc import Callable, Mapping
from math import pi

_PLAINER: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"[−–]", "-"),
        (r"\\[()\[\]]|[$~]|\\\$", ""),
        (r"\{,\}", ","),
        (r"\\(?:left|right|displaystyle|q?quad|[bB]igg?[lr]?)(?![a-zA-Z])|\\[!,;: ]", ""),
        (r"\\?%|\^\s*(?:\\circ|\{\s*\\circ\s*\})|\\degree|°", ""),
        (r"\\[dt]frac", r"\\frac"),
        (r"\\(?:mathrm|mathbf|textbf|textit|mbox|operatorname)\s*\{", r"\\text{"),
        (r"\\(?:cdot|times)(?![a-zA-Z])", "*"),
        (r"\\div(?![a-zA-Z])", "/"),
        (r"\\\{", "«"),
        (r"\\\}", "»"),
        # A unit behind a number; words alone are the answer.
        (r"(?<=[\d})])\s*\\text\s*\{[^{}]*\}(?:\s*\^\s*(?:\d|\{\d\}))?\s*$", ""),
        (r"\\text\s*\{([^{}]*)\}", r"\1"),
        (r"(?<=\d)\s*(?:degrees?|units?|dollars?|cents?|meters?|cm|inches|feet|hours?)\s*$", ""),
        (r"^\s*[a-zA-Z]\s*(?:=|\\in(?![a-zA-Z]))", ""),
        # A command ends where a letter can't follow: only there a space means anything.
        (r"(\\[a-zA-Z]+)\s+(?=[a-zA-Z])", "\\1\0"),
        (r"\s+", ""),
        ("\0", " "),
        (r"\\frac(\d)(\d)", r"\\frac{\1}{\2}"),
        # Three and a half, not three halves.
        (r"(?<![\w.}^])(\d+)(\\frac\{\d+\}\{\d+\})", r"(\1+\2)"),
        (r"^\((\w)\)$", r"\1"),
    )
)
_THOUSANDS = re.compile(r"-?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?")
_CLOSING = {"(": ")]", "[": ")]", "«": "»"}
_LONGEST = 300  # characters; longer answers are compared as they are written


def same_answer(answer: str, target: str) -> float:
    """1 if both say the same up to how it is written, else 0.

    Both are put into one notation; then expressions are compared by their values, with variables
    at three points, in floating point: no answer that a model makes up can take long, and none is
    run. Of pairs and intervals the parts are compared in order, of sets and bare lists in any.
    """
    one, two = plain(answer), plain(target)
    return float(bool(one) and _same(one, two))


def plain(text: str) -> str:
    """An answer without spaces, units, fonts and sizes, its commands of one kind written alike."""
    text = text.strip().rstrip(".")
    for pattern, replacement in _PLAINER:
        text = pattern.sub(replacement, text)
    return text.replace(",", "") if _THOUSANDS.fullmatch(text) else text


def _same(one: str, two: str) -> bool:
    if one == two or (one.isalpha() and one.casefold() == two.casefold()):
        return True
    if max(len(one), len(two)) > _LONGEST:
        return False
    (open_one, close_one, parts), (open_two, close_two, others) = _parts(one), _parts(two)
    if (open_one, close_one) != (open_two, close_two) or len(parts) != len(others):
        return False
    if len(parts) == 1:
        return _same_value(one, two)
    if open_one in ("(", "["):
        return all(map(_same, parts, others))
    for part in parts:
        match = next((other for other in others if _same(part, other)), None)
        if match is None:
            return False
        others.remove(match)
    return True


def _parts(text: str) -> tuple[str, str, list[str]]:
    """The brackets around a list, if they are, and what stands between its commas."""
    before, after, inside = "", "", text
    if text[0] in _CLOSING and text[-1] in _CLOSING[text[0]] and "," in text:
        before, after, inside = text[0], text[-1], text[1:-1]
    parts, depth = [""], 0
    for character in inside:
        depth += (character in "([{«") - (character in ")]}»")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return (before, after, parts) if all(parts) else ("", "", [text])


def _same_value(one: str, two: str) -> bool:
    try:
        pairs = [(_Expression(one, at).value(), _Expression(two, at).value()) for at in _POINTS]
    except (ValueError, ArithmeticError, RecursionError):
        return False
    return all(cmath.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12) for a, b in pairs)


_POINTS = (0.6180339887, 0.7548776662, 0.8191725134)
_TOKEN = re.compile(r"\\[a-zA-Z]+|[a-zA-Z]+|\d+(?:\.\d+)?|\.\d+|[-+*/^(){}\[\]]")
_FUNCTIONS: Mapping[str, Callable[[complex], complex]] = {
    "sin": cmath.sin,
    "cos": cmath.cos,
    "tan": cmath.tan,
    "log": cmath.log,
    "ln": cmath.log,
    "exp": cmath.exp,
}


class _Expression:
    """A reader of sums, products, powers, fractions, roots and a few functions, which computes as
    it reads; ValueError where the text is something else.

    A variable's value depends on its name and on ``at``.
    """

    def __init__(self, text: str, at: float) -> None:
        self._tokens = _TOKEN.findall(text)[::-1]
        self._at = at
        if "".join(self._tokens[::-1]) != text.replace(" ", ""):
            raise ValueError(text)

    def value(self) -> complex:
        """The whole text's value."""
        value = self._sum()
        if self._tokens:
            raise ValueError(self._tokens)
        return value

    def _next(self) -> str:
        return self._tokens[-1] if self._tokens else ""

    def _take(self, expected: str = "") -> str:
        if not self._tokens or (expected and self._tokens[-1] != expected):
            raise ValueError(expected)
        return str(self._tokens.pop())

    def _sum(self) -> complex:
        negative = self._next() == "-"
        if self._next() in ("+", "-"):
            self._take()
        value = -self._product() if negative else self._product()
        while self._next() in ("+", "-"):
            value += self._product() if self._take() == "+" else -self._product()
        return value

    def _product(self) -> complex:
        value = self._power()
        while (ahead := self._next()) and ahead not in "+-)}]":
            if ahead == "/":
                self._take()
                value /= self._power()
            else:
                if ahead == "*":
                    self._take()
                value *= self._power()
        return value

    def _power(self) -> complex:
        value = self._atom()
        if self._next() == "^":
            self._take()
            value **= self._argument() if self._next() == "{" else self._signed()
        return complex(value)

    def _signed(self) -> complex:
        if self._next() == "-":
            self._take()
            return -self._atom()
        return self._atom()

    def _atom(self) -> complex:
        token = self._take()
        if token in "({":
            value = self._sum()
            self._take(")" if token == "(" else "}")
            return value
        if token[0].isdigit() or token[0] == ".":
            return complex(float(token))
        name = token.removeprefix("\\")
        if name == "pi":
            return complex(pi)
        if name == "frac" and token != name:
            return self._argument() / self._argument()
        if name == "sqrt":
            return self._root()
        if name in _FUNCTIONS:
            return _FUNCTIONS[name](self._power())
        if token != name:
            return self._variable(name)
        if len(name) > 2:
            raise ValueError(name)  # a word, not a product of variables
        value = self._variable(name[0])
        if len(name) == 2:
            self._tokens.append(name[1])
        return value

    def _root(self) -> complex:
        degree = complex(2)
        if self._next() == "[":
            self._take()
            degree = self._sum()
            self._take("]")
        return complex(self._argument() ** (1 / degree))

    def _argument(self) -> complex:
        """What a command applies to: a group, or the one character that follows."""
        token = self._next()
        if token.isdigit() and len(token) > 1:
            self._take()
            self._tokens.append(token[1:])
            return complex(float(token[0]))
        return self._atom()

    def _variable(self, name: str) -> complex:
        if not name.isalpha():
            raise ValueError(name)
        return complex(0.5 + sum(name.encode()) * self._at % 1)
