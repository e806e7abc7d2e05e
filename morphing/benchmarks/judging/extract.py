"""From a generated text to the answer in it."""

from __future__ import annotations

import re
from collections.abc import Collection
from difflib import get_close_matches

from morphing.benchmarks.judging.answers import final_answer, last_boxed, last_number
from morphing.benchmarks.judging.programs import program_in

RULES = ("strip", "first_line", "last_number", "final_answer", "boxed", "code")
REGEX = "regex:"


def check_rule(rule: str) -> None:
    """Raise ValueError where ``rule`` is no extraction rule."""
    if rule.startswith(REGEX):
        try:
            re.compile(rule.removeprefix(REGEX))
        except re.error as error:
            raise ValueError(f"extract has a malformed regular expression ({error})") from error
    elif rule not in RULES:
        near = get_close_matches(re.sub(r"[\s-]", "_", rule.lower()), RULES, n=1)
        hint = f"did you mean {near[0]!r}? else " if near else ""
        raise ValueError(
            f"unknown extract {rule!r} ({hint}choose {', '.join(RULES)} or regex:<pattern>)"
        )


def extract_answer(
    rule: str, text: str, language: str | None = None, wanted: Collection[str] = ()
) -> str:
    """The answer that ``rule`` finds in ``text``; empty where there is none.

    ``language`` (BCP 47) tells ``last_number`` and ``final_answer`` how numbers are written,
    ``wanted`` tells ``code`` which functions and classes the program should define.
    """
    if rule == "strip":
        return text.strip()
    if rule == "first_line":
        return text.strip().partition("\n")[0].rstrip()
    if rule == "last_number":
        return last_number(text, language)
    if rule == "final_answer":
        return final_answer(text, language)
    if rule == "boxed":
        return last_boxed(text)
    if rule == "code":
        return program_in(text, wanted)
    matches = list(re.finditer(rule.removeprefix(REGEX), text))
    if not matches:
        return ""
    groups = [group for group in matches[-1].groups() if group is not None]
    return (groups[0] if groups else matches[-1].group()).strip()
