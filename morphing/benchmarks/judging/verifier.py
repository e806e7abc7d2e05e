"""The process that decides whether answers in LaTeX are equal, with math-verify: run as a program.

A line of JSON comes in, a list of pairs [target, answer] in LaTeX; "1" goes out where those of any
pair are equal, else "0". Each line is worked on by a fork, which is ended when it has used
``CPU_SECONDS`` of processor time or too much memory: sympy can be made to compute forever inside
one call in C, which no exception reaches. Time is the processor's, so that a busy machine does not
change what is equal; math-verify's own timeouts go by the clock and need a main thread.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import sys
from typing import Any

CPU_SECONDS = 2
"""For one comparison; ordinary ones take a few hundredths."""
_WALL_SECONDS = 120
_MEMORY = 2 * 2**30  # bytes of address space
_EQUAL = 10  # an exit status that nothing else gives


def main() -> None:
    """Answer lines until there are no more."""
    logging.disable()
    # What is loaded and compiled by a first comparison is then there in all forks.
    equal(r"\frac{1}{2}(x-1)^2+\sqrt{2}", r"\{(1,2],3\}")
    print("ready", flush=True)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _in_fork(line)
        _, status = os.waitpid(child, 0)
        same = os.WIFEXITED(status) and os.WEXITSTATUS(status) == _EQUAL
        print(int(same), flush=True)


def _in_fork(line: str) -> None:
    status = 0
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if sys.platform == "linux":  # elsewhere address space is not limited, or not by this
            resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        signal.alarm(_WALL_SECONDS)
        if any(equal(target, answer) for target, answer in json.loads(line)):
            status = _EQUAL
    except BaseException:  # MemoryError, RecursionError, whatever sympy raises: not equal
        pass
    finally:
        os._exit(status)


def equal(target: str, answer: str) -> bool:
    """Whether math-verify finds both to be the same, numbers that are small relatively too."""
    from math_verify import LatexExtractionConfig, parse, verify

    expressions = [
        parse(f"${text}$", [LatexExtractionConfig()], parsing_timeout=None)
        for text in (target, answer)
    ]
    if not all(expressions):
        return False
    one, two = (found[0] for found in expressions)
    # Whichever of both is the target: "x < 3" is "(-\\infty, 3)".
    if verify([one], [two], timeout_seconds=None, allow_set_relation_comp=True):
        return _close(one, two)
    one, two = _with_imaginary_unit(one), _with_imaginary_unit(two)
    return bool(verify([one], [two], timeout_seconds=None))


def _close(one: Any, two: Any) -> bool:
    """False of decimals that are equal only because math-verify rounds to six places."""
    from sympy import Expr, Float

    numbers = [each for each in (one, two) if isinstance(each, Expr) and each.is_number]
    if len(numbers) < 2 or not any(each.has(Float) for each in numbers):
        return True
    a, b = (abs(complex(each.doit().evalf())) for each in numbers)
    return max(a, b) >= 0.1 or abs(a - b) <= 1e-5 * max(a, b)


def _with_imaginary_unit(expression: Any) -> Any:
    from sympy import Expr, I

    if not isinstance(expression, Expr):
        return expression
    return expression.subs({each: I for each in expression.free_symbols if each.name == "i"})


if __name__ == "__main__":
    main()
