"""``python -m morphing`` is the ``morphing`` command."""

from morphing.cli import main

main()
