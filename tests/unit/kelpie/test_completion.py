"""What a shell is offered."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from kelpie import settings
from kelpie.commands import completion
from kelpie.errors import CloudUnavailable

CONTEXT = SimpleNamespace(params={"stack_name": "kelpie"})


def test_keys_of_settings_are_offered_with_what_they_are():
    offered = dict(completion.setting_keys("tuning.max_"))
    assert {"tuning.max_jobs=", "tuning.max_parallel_jobs="} <= set(offered)
    assert all(key.startswith("tuning.max_") and text for key, text in offered.items())
    assert len(completion.setting_keys("")) == len(settings.rules())


def test_executions_are_offered_by_the_beginning_of_their_names(monkeypatch):
    recent = [{"name": "20261122-a", "status": "RUNNING"}, {"name": "20261121-b", "status": "FAILED"}]
    monkeypatch.setattr(completion, "connect", lambda name: name)
    monkeypatch.setattr(completion.execution, "recent", lambda stack, _count: recent if stack == "kelpie" else [])
    assert completion.execution_names(CONTEXT, "20261122") == [("20261122-a", "RUNNING")]
    assert len(completion.execution_names(CONTEXT, "")) == 2


def test_without_a_cloud_nothing_is_offered(monkeypatch):
    def connect(_name):
        raise CloudUnavailable("none is up")

    monkeypatch.setattr(completion, "connect", connect)
    assert completion.execution_names(CONTEXT, "") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_has_its_script(shell):
    command = [sys.executable, "-m", "kelpie", "--show-completion", shell]
    shown = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"NO_COLOR": "1"})
    assert shown.returncode == 0, shown.stderr
    assert "COMPLETE" in shown.stdout
