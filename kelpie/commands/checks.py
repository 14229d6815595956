"""`kelpie doctor`: looks at the machine, or at an account, and says what is missing."""

from __future__ import annotations

import dataclasses

from kelpie.commands.terminal import Json, Port, StackName, print_json, result_console
from kelpie.doctor.account import check_account
from kelpie.doctor.check import show, worst
from kelpie.doctor.machine import check_machine
from kelpie.errors import RunFailed


def doctor(port: Port = 4566, stack_name: StackName = None, as_json: Json = False) -> None:
    """Say what this machine, or an account, lacks. With --stack it looks at the account. Exits with 1 if anything is
    missing.
    """
    checks = check_account(stack_name) if stack_name else check_machine(port)
    if as_json:
        print_json([dataclasses.asdict(check) for check in checks])
    else:
        show(checks, result_console())
    if worst(checks) == "missing":
        missing = ", ".join(check.name for check in checks if check.verdict == "missing")
        raise RunFailed(f"missing: {missing}")
