import pytest
from botocore.exceptions import ClientError

OTHER = "arn:aws:states:eu-west-1:123456789012:execution:kelpie:other"
THIRD = "arn:aws:states:eu-west-1:123456789012:execution:kelpie:third"


class Executions:
    """Step Functions' answer for each execution; those it does not name are forgotten."""

    def __init__(self, **statuses):
        self.statuses = {OTHER: statuses.get("other"), THIRD: statuses.get("third")}

    def describe_execution(self, executionArn):  # noqa: N803 - AWS's name
        if self.statuses[executionArn] is None:
            raise ClientError({"Error": {"Code": "ExecutionDoesNotExist"}}, "DescribeExecution")
        return {"status": self.statuses[executionArn]}


@pytest.fixture
def app(load):
    return load("lock_endpoint")


@pytest.fixture
def ask(app, event, context, monkeypatch, s3):
    def ask(action="lock", **statuses):
        clients = {"s3": s3, "stepfunctions": Executions(**statuses)}
        monkeypatch.setattr(app, "client", clients.__getitem__)
        return app.handler({**event, "action": action}, context)

    return ask


@pytest.fixture
def uri(plan):
    return f"s3://{plan['bucket']}/endpoints/{plan['names']['endpoint']}/lock.json"


@pytest.fixture
def owned(put, uri, example):
    """The lock is another's."""
    return lambda owner, left_by=None: put(uri, example("lock") | {"owner": owner, "left_by": left_by})


def test_a_lock_that_nobody_took_is_taken_kept_and_given_back(ask, get, uri, plan):
    me = plan["execution_arn"]
    assert ask() == {"held": True, "owner": me, "left_by": "", "champion_channels": []}
    assert ask() == {"held": True, "owner": me, "left_by": "", "champion_channels": []}
    assert get(uri)["owner"] == me
    assert ask("unlock") == {"held": False, "owner": "", "left_by": "", "champion_channels": []}
    assert get(uri)["owner"] is None
    assert ask()["held"] is True


@pytest.mark.parametrize("status", ["RUNNING", "PENDING_REDRIVE"])
def test_the_lock_of_an_execution_that_runs_is_left_alone(ask, owned, get, uri, status):
    owned(OTHER)
    assert ask(other=status) == {"held": False, "owner": OTHER, "left_by": "", "champion_channels": []}
    assert get(uri)["owner"] == OTHER


@pytest.mark.parametrize("status", ["SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED", None])
def test_the_lock_of_an_execution_that_has_ended_is_taken_over(ask, owned, plan, status):
    owned(OTHER)
    assert ask(other=status) == {
        "held": True,
        "owner": plan["execution_arn"],
        "left_by": OTHER,
        "champion_channels": [],
    }
    assert ask(other=status)["left_by"] == OTHER


def test_what_was_left_before_the_last_owner_is_not_forgotten(ask, owned):
    owned(OTHER, left_by=THIRD)
    assert ask(other="ABORTED")["left_by"] == THIRD


def test_nobody_unlocks_what_is_anothers(ask, owned, get, uri):
    owned(OTHER)
    ask("unlock")
    assert get(uri)["owner"] == OTHER


def test_of_two_that_find_the_lock_free_one_gets_it(app, ask, owned, get, uri, monkeypatch):
    """The other writes between our look and our write."""
    real, raced = app.endpoints.read_lock, []

    def read(client, where):
        found = real(client, where)
        if not raced:
            raced.append(owned(OTHER))
        return found

    monkeypatch.setattr(app.endpoints, "read_lock", read)
    assert ask(other="RUNNING") == {"held": False, "owner": OTHER, "left_by": "", "champion_channels": []}
    assert get(uri)["owner"] == OTHER


def test_endless_contention_is_an_error(app, ask, owned, monkeypatch):
    real = app.endpoints.read_lock

    def read(client, where):
        found = real(client, where)
        owned(None, left_by=None if found[0]["left_by"] else THIRD)
        return found

    monkeypatch.setattr(app.endpoints, "read_lock", read)
    with pytest.raises(app.endpoints.LockContended):
        ask()


def test_the_champion_is_shown_to_who_has_the_lock(ask, put, plan, example):
    put(f"s3://{plan['bucket']}/endpoints/{plan['names']['endpoint']}/champion.json", example("champion"))
    channels = {
        channel["ChannelName"]: channel["DataSource"]["S3DataSource"]["S3Uri"] for channel in ask()["champion_channels"]
    }
    assert channels == {
        "champion": example("champion")["model_data"],
        "champion_manifest": example("champion")["manifest"],
    }
    assert ask("unlock")["champion_channels"] == []
