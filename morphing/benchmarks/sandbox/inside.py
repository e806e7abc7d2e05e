"""Runs inside the sandbox, before the program: drops root, sets the limits, then becomes it.

Given to the sandbox's Python as text, so it imports only the standard library. The program comes
on the standard input. Its arguments: a mark, printed on a line of its own when the program begins
and again when it has reached its end; the user to become (0 to stay); and one limit each of
:class:`morphing.benchmarks.sandbox.run.Limits`.
"""

from __future__ import annotations

import os
import random
import resource
import sys
import types


def main() -> None:
    mark = f"{sys.argv[1]}\n".encode()
    user, cpu_seconds, memory, processes, file_bytes = map(int, sys.argv[2:])
    del sys.argv[1:], sys.orig_argv[1:]
    os.closerange(3, 1024)
    program = sys.stdin.read()
    if user:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    for limit, value in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_NPROC, processes),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
    ):
        resource.setrlimit(limit, (value, value))
    # At the first of the two it is told so by a signal, which its exit code shows.
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))
    random.seed(0)
    # Not __main__: what a program would do when started by hand (ask, print) is not asked for.
    module = types.ModuleType("program")
    sys.modules["program"] = module
    end = os.dup(1)  # the program may close its output
    os.write(1, mark)
    exec(compile(program, "program.py", "exec", dont_inherit=True), module.__dict__)
    os.write(end, mark)


if __name__ == "__main__":
    main()
