"""What can go wrong in the command, and the exit code of each.

KelpieError
├── InvalidInput     2   an option, a setting, a file or a data set cannot be used; nothing was started
├── CloudUnavailable 3   no cloud is up, it is up already, it does not answer, it refuses, or it lacks the stack
└── RunFailed        1   the run ended, but not with a model in service; or it could not be followed to its end
"""


class KelpieError(Exception):
    """One line for stderr: what was wrong and what to do. No traceback is shown for it."""

    exit_code = 1


class InvalidInput(KelpieError):
    exit_code = 2


class CloudUnavailable(KelpieError):
    exit_code = 3


class RunFailed(KelpieError):
    exit_code = 1
