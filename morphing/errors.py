"""Errors a user can mend: one clear sentence each, shown without a traceback."""

from __future__ import annotations

import errno

_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class MorphingError(Exception):
    """Something outside the program is wrong: an input, the network, the disk, a permission.

    ``str(error)`` is one sentence that says what is wrong, where, and the mend. The app and the
    CLI show it as it is; a traceback is shown only with ``--debug``.
    """


def is_disk_full(error: BaseException) -> bool:
    """Whether ``error`` says that a disk, a quota or a limit on file sizes is used up."""
    return isinstance(error, OSError) and error.errno in _DISK_FULL


def mendable(error: BaseException) -> str | None:
    """The sentence of an error that a user can mend; None of any other."""
    if isinstance(error, MorphingError):
        return str(error)
    if not isinstance(error, OSError):
        return None
    where = f" ({error.filename})" if error.filename else ""
    if is_disk_full(error):
        return f"The disk is full{where}: free some space and try again; what was done is kept."
    if error.errno == errno.EROFS:
        return f"The disk is read-only{where}: work on a copy on a disk that can be written."
    if error.errno in (errno.EACCES, errno.EPERM) and where:
        return f"Permission denied{where}: change the permissions, or choose another place."
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return f"Too many files are open{where}: raise the limit (`ulimit -n`) and try again."
    return None


def first_line(error: BaseException) -> str:
    """What an exception says, in one line without its full stop."""
    lines = (line.strip(" *\t") for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__).rstrip(".")
