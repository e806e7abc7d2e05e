"""The program that is meant in a text that a model wrote."""

from __future__ import annotations

import pytest

from morphing.benchmarks.judging.programs import names_missing_in, program_in

F = "def f(x):\n    return g(x)\n"
G = "def g(x):\n    return x\n"
SHELL = "```bash\npip install f\n```\n"


def fenced(code: str, language: str = "python", mark: str = "```") -> str:
    return f"{mark}{language}\n{code}{mark}\n"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("    return 1\n", "    return 1\n"),
        ("Sure.\n```python\n  a = 1\n\nb\n```\nmore\n```\nc\n```", "  a = 1\n\nb\n"),
        ("```\nnever closed\n  x", "never closed\n  x"),
        ("  ```python title=x\n  x\n  ```", "x\n"),
        ("x = '```'\n", "x = '```'\n"),
        ("```python\n```", ""),
        ("", ""),
        # One language before others, and an unknown one where there is nothing else.
        (SHELL + fenced(F), F),
        (SHELL + fenced(F, ""), F),
        (SHELL, "pip install f\n"),
        (fenced(F, "Python3"), F),
        (fenced(F, "{.python .numberLines}"), F),
        (fenced(F, "py", "~~~"), F),
        (fenced("```\n" + F, "python", "````"), "```\n" + F),
        # Opened behind words, closed with words, left open before another, an example inside.
        ("Sure: ```python\n" + F + "```\n", F),
        ("```python\n" + F + "``` That is all.\n", F),
        ("```python\n" + F + "```python\n", F),
        (
            '```python\ndef f():\n    """\n    ```\n    f()\n    ```\n    """\n```\n',
            'def f():\n    """\n    ```\n    f()\n    ```\n    """\n',
        ),
        ("```pycon\n>>> def f(x):\n...     return g(x)\n...\n>>> f(1)\n1\n```\n", F + "\nf(1)\n"),
        # Inside a list, a quotation, and with less indentation than its fence.
        (
            "1. So:\n   ```python\n   def f(x):\n       return x\n   ```\n",
            "def f(x):\n    return x\n",
        ),
        ("- ```python\n  def f(x):\n      return x\n  ```\n", "def f(x):\n    return x\n"),
        ("   ```python\ndef f(x):\n    return x\n   ```\n", "def f(x):\n    return x\n"),
        ("> ```python\n> def f(x):\n>     return x\n> ```\n", "def f(x):\n    return x\n"),
        ("\t```python\n\tdef f(x):\n\t    return x\n\t```\n", "def f(x):\n    return x\n"),
        ("```python\r\nx = 1\r\n```\r\n", "x = 1\r\n"),
    ],
)
def test_blocks(text: str, found: str) -> None:
    assert program_in(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (fenced("print(f(1))\n") + fenced(F), F),
        (fenced(F) + fenced("print(f(1))\n"), F),
        (fenced("f = lambda x: x\n"), "f = lambda x: x\n"),
        (fenced("class f:\n    pass\n"), "class f:\n    pass\n"),
        (fenced(F, "") + fenced("print(1)\n"), F),
        (fenced(F, "text") + fenced("print(1)\n"), F),
        # Helpers, before and after, and what they need in turn.
        (fenced(G) + fenced(F), f"{G}\n{F}"),
        (fenced(F) + fenced(G), f"{G}\n{F}"),
        (
            fenced("import math\n") + fenced("def f(x):\n    return math.pi\n"),
            "import math\n\ndef f(x):\n    return math.pi\n",
        ),
        (fenced(G) + fenced("print(2)\n") + fenced(F), f"{G}\n{F}"),
        # The whole program again needs no helper.
        (fenced(G) + fenced(G + F), G + F),
        # Cut short: what it was about to define counts.
        (fenced("print(1)\n") + "```python\ndef f(x):\n    return (", "def f(x):\n    return ("),
        # Nobody defines it: a body, or something else.
        (SHELL + fenced("    return x\n"), "    return x\n"),
        ("    return x\n", "    return x\n"),
    ],
)
def test_the_block_that_defines_what_is_tested(text: str, found: str) -> None:
    assert program_in(text, {"f"}) == found


@pytest.mark.parametrize("before", ["", "Here it is:\n\n", "Here it is.\n[PYTHON]\n", "<code>\n"])
@pytest.mark.parametrize(
    "after", ["", "\nThis returns g of x.\n", "</code>\n", "\nThe result of f(1) is 1."]
)
def test_a_program_among_words_without_a_fence_is_found(before: str, after: str) -> None:
    found = program_in(before + "import g\n\n" + F + after, ["f"])
    assert found.strip() == ("import g\n\n" + F).strip()


def test_names_that_tests_need() -> None:
    assert names_missing_in("\n\nassert f(len([1])) == g.h\nfor x in y: print(x)") == {
        "f",
        "g",
        "y",
    }
    assert names_missing_in("import m\ndef f(a, *b): return a + b + m.c\nassert f(1)") == set()
    assert names_missing_in("assert f(") == set()


def test_blocks_that_define_parts_of_what_is_tested_are_joined() -> None:
    node, search = "class Node:\n    pass\n", "def search(node):\n    return node\n"
    assert program_in(fenced(node) + fenced(search), {"Node", "search"}) == f"{search}\n{node}"


def test_hostile_text_ends() -> None:
    deep = fenced("(" * 20_000)
    assert program_in(deep, {"f"}) == "(" * 20_000 + "```\n"
    assert program_in("```\n" * 5000, {"f"}) == ""


@pytest.mark.parametrize("text", [" " * 100_000, "- " * 50_000, "> " * 50_000, "`" * 100_000])
def test_long_lines_end(text: str) -> None:
    assert program_in(text) in (text, "")
