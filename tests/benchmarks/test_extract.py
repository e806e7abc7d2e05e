"""Answers in generated texts."""

from __future__ import annotations

import pytest

from morphing.benchmarks.judging.answers import last_number
from morphing.benchmarks.judging.extract import extract_answer


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("The answer is 42.", "42"),
        ("#### 1,234", "1234"),
        ("It costs $1,234,567.50 in all", "1234567.5"),
        ("2 + 2 = 4", "4"),
        ("42.0", "42"),
        ("0.50", "0.5"),
        ("= .5", "0.5"),
        ("007", "7"),
        ("100", "100"),
        ("-3", "-3"),
        ("it is −3 degrees", "-3"),
        ("a loss of -$1,200", "-1200"),
        ("10-3", "3"),
        ("(4)-1", "1"),
        ("x = -0.0", "0"),
        ("1,2,3", "3"),
        ("12,3456", "3456"),
        ("50%", "50"),
        ("<<48/2=24>>24", "24"),
        ("\\boxed{18}", "18"),
        ("答えは１，２３４円です。", "1234"),
        ("答え：－５", "-5"),
        ("1\u202f234", "1234"),
        ("in 12 345", "345"),
        ("3.14.", "3.14"),
        ("no number", ""),
        ("", ""),
    ],
)
def test_last_number(text: str, number: str) -> None:
    assert last_number(text) == number
    assert extract_answer("last_number", text, "en") == number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("Gana 1.234 dólares", "1234"),
        ("1.234.567,89", "1234567.89"),
        ("1,234", "1234"),
        ("3,5", "3.5"),
        ("3.5", "3.5"),
        ("0,125", "0.125"),
        ("18.", "18"),
    ],
)
def test_decimal_comma(text: str, number: str) -> None:
    assert last_number(text, "es") == last_number(text, "es-MX") == number


@pytest.mark.parametrize(
    ("rule", "text", "answer"),
    [
        ("strip", "  a b \n", "a b"),
        ("first_line", "\n\n yes \nno", "yes"),
        ("first_line", "", ""),
        ("boxed", r"so \boxed{1} and then $\boxed{\frac{1}{2}}$.", r"\frac{1}{2}"),
        ("boxed", r"\fbox{ a } \boxed {\{1, 2\}}", r"\{1, 2\}"),
        ("boxed", r"it is $\boxed 7$.", "7"),
        ("boxed", r"\boxed{1} but \boxed{2", ""),
        ("boxed", r"{18}", ""),
        (r"regex:answer is (\w+)", "answer is a, no: answer is b", "b"),
        (r"regex:\d+", "1 22 333", "333"),
        (r"regex:(a)|(b)", "a b", "b"),
        (r"regex:\d+", "none", ""),
    ],
)
def test_rules(rule: str, text: str, answer: str) -> None:
    assert extract_answer(rule, text) == answer
