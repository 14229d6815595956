"""Where the state of a local cloud lies, and what `kelpie up` waits for."""

from pathlib import Path

import pytest

from kelpie import local
from kelpie.errors import CloudUnavailable
from kelpie.local import find_home
from localcloud.containers.environments import Environment, Environments


def test_it_lies_in_the_current_folder_unless_one_above_has_it(tmp_path):
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    assert find_home({}, below) == below / ".kelpie"
    (tmp_path / ".kelpie").mkdir()
    assert find_home({}, below) == tmp_path / ".kelpie"
    (below / ".kelpie").mkdir()
    assert find_home({}, below) == below / ".kelpie"


def test_kelpie_home_names_another_place(tmp_path):
    assert find_home({"KELPIE_HOME": str(tmp_path / "elsewhere")}, tmp_path) == tmp_path / "elsewhere"
    assert find_home({"KELPIE_HOME": ""}, tmp_path) == tmp_path / ".kelpie"


@pytest.mark.parametrize("below", ["", "below"])
def test_a_home_that_can_keep_nothing_is_named_with_the_remedy(tmp_path, monkeypatch, below):
    (tmp_path / "file").touch()
    monkeypatch.setenv("KELPIE_HOME", str(tmp_path / "file" / below))
    with pytest.raises(CloudUnavailable, match=r"cannot be kept in .*/file.*: name another folder by KELPIE_HOME"):
        local.up(1, print)
    with pytest.raises(CloudUnavailable, match="no local cloud is up"):
        local.require_up()


class Restarted:
    """A session with a cloud whose endpoints have these statuses, one each time it is asked."""

    def __init__(self, *statuses):
        self.statuses = list(statuses)

    def client(self, service):
        assert service == "sagemaker"
        return self

    def list_endpoints(self):
        status = self.statuses.pop(0)
        return {"Endpoints": [{"EndpointName": "kelpie", "EndpointStatus": status}] if status else []}


@pytest.mark.parametrize(
    ("statuses", "said"),
    [
        (["SystemUpdating", "SystemUpdating", "InService"], ["waiting for the endpoint kelpie"]),
        (["SystemUpdating", "Failed"], ["waiting for the endpoint kelpie"]),
        (["InService"], []),
        ([None], []),
    ],
)
def test_up_waits_for_endpoints_that_start_again(monkeypatch, statuses, said):
    monkeypatch.setattr(local, "POLL_SECONDS", 0)
    told, session = [], Restarted(*statuses)
    local.wait_for_endpoints(session, told.append)
    assert (told, session.statuses) == (said, [])


def test_up_does_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr(local, "ENDPOINT_SECONDS", 0)
    told = []
    local.wait_for_endpoints(Restarted(), told.append)
    assert "kelpie status" in told[-1]


@pytest.mark.parametrize("built", [True, False])
def test_that_an_environment_of_gigabytes_is_installed_is_said_first(monkeypatch, built):
    told = []
    monkeypatch.setattr(Environments, "built", lambda *_: built)
    monkeypatch.setattr(
        Environments, "with_requirements", lambda *_: told.append("begins") or Environment((Path("/e"),))
    )
    assert local.training_python(told.append) == Path("/e/bin/python")
    assert told[-1] == "begins"
    assert ["6 GB" in line for line in told[:-1]] == ([] if built else [True])
