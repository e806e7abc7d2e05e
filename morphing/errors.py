"""Errors a user can mend: one clear sentence each, shown without a traceback."""

import errno

DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Numbers of an OSError that a disk, a quota or a limit on file sizes is used up."""


class MorphingError(Exception):
    """Something outside the program is wrong: an input, the network, the disk, a permission.

    ``str(error)`` is one sentence that says what is wrong, where, and the mend. The app and the
    CLI show it as it is; a traceback is shown only with ``--debug``.
    """
