import io
import json
from types import SimpleNamespace

import pytest
from botocore.exceptions import ClientError

FORMER = "kelpie-former"
OURS = "kelpie-3f2a9c0d1e4b"
WEIGHTS = "0" * 64


class Endpoint:
    """SageMaker with one endpoint: `statuses` are passed through, one a look, the last stays."""

    def __init__(self, config, *statuses, weights=WEIGHTS, after_update="InService"):
        self.config, self.statuses, self.weights, self.after_update = config, list(statuses), weights, after_update
        self.deleted = False
        self.retired: set[str] = set()
        self.stopped = []
        self.execution = "ABORTED"
        self.scaling = {}
        self.jobs = {
            "list_hyper_parameter_tuning_jobs": (
                "HyperParameterTuningJobSummaries",
                "HyperParameterTuningJobName",
                ["tune-1"],
            ),
            "list_training_jobs": ("TrainingJobSummaries", "TrainingJobName", ["train-1"]),
        }

    def describe_execution(self, executionArn):  # noqa: ARG002, N803
        return {"status": self.execution}

    def register_scalable_target(self, **request):
        self.scaling["target"] = request

    def put_scaling_policy(self, **request):
        self.scaling["policy"] = request

    def stop_hyper_parameter_tuning_job(self, HyperParameterTuningJobName):  # noqa: N803
        self.stopped.append(HyperParameterTuningJobName)

    def stop_training_job(self, TrainingJobName):  # noqa: N803
        self.stopped.append(TrainingJobName)
        raise ClientError({"Error": {"Code": "ValidationException", "Message": "it has ended"}}, "StopTrainingJob")

    def get_paginator(self, operation):
        if operation != "list_endpoints":
            member, name, found = self.jobs[operation]
            return SimpleNamespace(paginate=lambda **_: [{member: [{name: job} for job in found]}])
        found = [] if self.config is None or self.deleted else [{"EndpointName": "kelpie"}]
        return SimpleNamespace(paginate=lambda NameContains: [{"Endpoints": found}])  # noqa: ARG005, N803

    def describe_endpoint(self, EndpointName):  # noqa: ARG002, N803
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        return {"EndpointStatus": status, "EndpointConfigName": self.config}

    def describe_endpoint_config(self, EndpointConfigName):  # noqa: N803
        if EndpointConfigName in self.retired:
            raise ClientError({"Error": {"Code": "ValidationException", "Message": "Could not find"}}, "Describe")

    def update_endpoint(self, EndpointName, EndpointConfigName, **retained):  # noqa: ARG002, N803
        self.retained = retained
        assert self.statuses == ["InService"]
        self.statuses = ["Updating", self.after_update]
        self.config = EndpointConfigName if self.after_update == "InService" else self.config

    def delete_endpoint(self, EndpointName):  # noqa: ARG002, N803
        self.deleted = True

    def invoke_endpoint(self, **_):
        body = {"predictions": [], "model": {"weights_sha256": self.weights}}
        return {"Body": io.BytesIO(json.dumps(body).encode())}


@pytest.fixture
def plan(plan, monkeypatch):
    # The example's run_id is of no execution's ARN.
    monkeypatch.setenv("BUCKET", plan["bucket"])
    return plan | {"previous_endpoint_config": FORMER}


@pytest.fixture
def app(load):
    module = load("recover_deploy")
    module.POLL_SECONDS = 0
    return module


@pytest.fixture
def lock_uri(plan):
    return f"s3://{plan['bucket']}/endpoints/kelpie/lock.json"


@pytest.fixture
def recover(app, plan, put, example, lock_uri, monkeypatch, s3):
    import hashlib

    run_id = hashlib.sha256(plan["execution_arn"].encode()).hexdigest()[:12]
    put(f"s3://{plan['bucket']}/runs/{run_id}/plan.json", plan)
    put(lock_uri, example("lock") | {"owner": plan["execution_arn"]})

    def recover(endpoint, milliseconds_left=60_000):
        monkeypatch.setattr(app, "client", lambda service: s3 if service == "s3" else endpoint)
        context = SimpleNamespace(aws_request_id="r", get_remaining_time_in_millis=lambda: milliseconds_left)
        return app.handler({"detail": {"executionArn": plan["execution_arn"]}}, context)["outcome"]

    return recover


@pytest.fixture
def champion(put, example, plan, s3):
    def champion(config, scaling=None):
        document = example("champion") | {"endpoint_config": config, "run_id": "aaaaaaaaaaaa"}
        document["scaling"] |= scaling or {}
        put(f"s3://{plan['bucket']}/endpoints/kelpie/champion.json", document)
        put(document["evaluation"], example("evaluation"))
        bucket, _, key = document["evaluation"].removeprefix("s3://").partition("/")
        s3.put_object(Bucket=bucket, Key=f"{key.rpartition('/')[0]}/samples/0001.jpg", Body=b"image")

    return champion


def test_the_champion_is_restored_asked_and_the_lock_given_back(recover, champion, get, lock_uri):
    champion(FORMER)
    endpoint = Endpoint(OURS, "Updating", "InService")
    assert recover(endpoint) == f"restored {FORMER}"
    assert endpoint.config == FORMER
    assert get(lock_uri)["owner"] is None
    assert recover(endpoint) == "held no lock"


class ChangedByAnother(Endpoint):
    """Another call sees the same, and acts first."""

    def update_endpoint(self, EndpointName, EndpointConfigName, **retained):  # noqa: N803
        super().update_endpoint(EndpointName, self.after_others or EndpointConfigName, **retained)
        refused = {"Code": "ValidationException", "Message": "Cannot update in-progress endpoint"}
        raise ClientError({"Error": refused}, "UpdateEndpoint")

    def delete_endpoint(self, EndpointName):  # noqa: N803
        super().delete_endpoint(EndpointName)
        gone = {"Code": "ValidationException", "Message": "Could not find endpoint"}
        raise ClientError({"Error": gone}, "DeleteEndpoint")

    after_others = None


def test_a_champion_that_another_call_restores_at_the_same_moment_is_restored(recover, champion, get, lock_uri):
    champion(FORMER)
    assert recover(ChangedByAnother(OURS, "InService")) == f"restored {FORMER}"
    assert get(lock_uri)["owner"] is None


def test_a_restoration_that_sagemaker_refuses_is_told_with_its_reason(app, recover, champion):
    champion(FORMER)
    endpoint = ChangedByAnother(OURS, "InService")
    endpoint.after_others = "by-hand"
    with pytest.raises(app.ChampionNotRestored, match=r"InService on by-hand: .*Cannot update in-progress endpoint"):
        recover(endpoint)


def test_an_update_that_rolled_back_by_itself_leaves_nothing_to_do(recover, champion, get, lock_uri):
    champion(FORMER)
    assert recover(Endpoint(FORMER, "Updating", "InService")) == "nothing to restore"
    assert get(lock_uri)["owner"] is None


def test_a_run_that_was_redriven_meanwhile_keeps_its_jobs_and_its_lock(recover, champion, get, lock_uri, plan):
    champion(FORMER)
    endpoint = Endpoint(OURS, "InService")
    endpoint.execution = "RUNNING"
    assert "runs again" in recover(endpoint)
    assert (endpoint.config, endpoint.stopped) == (OURS, [])
    assert get(lock_uri)["owner"] == plan["execution_arn"]


def test_jobs_that_the_run_left_are_stopped_lock_or_no_lock(recover, put, lock_uri, example):
    put(lock_uri, example("lock") | {"owner": "arn:another"})
    endpoint = Endpoint(OURS, "InService")
    assert recover(endpoint) == "held no lock"
    assert endpoint.stopped == ["tune-1", "train-1"]


def test_a_run_that_had_moved_the_champion_keeps_it(recover, champion):
    champion(OURS)
    endpoint = Endpoint(OURS, "InService")
    assert "champion" in recover(endpoint)
    assert endpoint.config == OURS


SCALING = {"target": {"MaxCapacity": 3}, "policy": {"PolicyName": "p"}}


@pytest.mark.parametrize("live", [FORMER, OURS])
def test_auto_scaling_takes_the_champion_up_again(recover, champion, live):
    champion(FORMER, SCALING)
    endpoint = Endpoint(live, "InService")
    recover(endpoint)
    assert (endpoint.config, endpoint.scaling) == (FORMER, SCALING)


@pytest.mark.parametrize("live", ["by-hand", None])
def test_auto_scaling_takes_up_nothing_but_the_champion(recover, champion, live):
    champion(FORMER, SCALING)
    endpoint = Endpoint(live, "InService")
    recover(endpoint)
    assert endpoint.scaling == {}


def test_a_champion_is_restored_as_large_as_the_load_made_it(recover, champion, plan, put):
    import hashlib

    run_id = hashlib.sha256(plan["execution_arn"].encode()).hexdigest()[:12]
    retained = {"RetainAllVariantProperties": True}
    scaled = plan | {"scaling": plan["scaling"] | {"retained": retained}}
    put(f"s3://{plan['bucket']}/runs/{run_id}/plan.json", scaled)
    champion(FORMER)
    endpoint = Endpoint(OURS, "InService")
    recover(endpoint)
    assert endpoint.retained == retained


def test_an_endpoint_of_others_is_left_alone(recover, champion):
    champion(FORMER)
    endpoint = Endpoint("by-hand", "InService")
    assert recover(endpoint) == "nothing to restore"
    assert endpoint.config == "by-hand"


def test_without_a_champion_the_configuration_before_the_run_comes_back(recover):
    endpoint = Endpoint(OURS, "InService")
    assert recover(endpoint) == f"restored {FORMER}"


@pytest.mark.parametrize("kind", [Endpoint, ChangedByAnother])
def test_the_first_endpoint_of_a_name_is_deleted(recover, plan, put, kind):
    import hashlib

    run_id = hashlib.sha256(plan["execution_arn"].encode()).hexdigest()[:12]
    put(f"s3://{plan['bucket']}/runs/{run_id}/plan.json", plan | {"previous_endpoint_config": None})
    endpoint = kind(OURS, "Creating", "Failed")
    assert "deleted" in recover(endpoint)
    assert endpoint.deleted


@pytest.mark.parametrize(
    ("before", "planned", "config"),
    [
        (None, "2026-11-22T12:00:00Z", None),
        (None, "2026-11-21T12:00:00Z", FORMER),
        (FORMER, "2026-11-22T12:00:00Z", FORMER),
    ],
)
def test_a_champion_whose_endpoint_was_deleted_before_the_run_does_not_come_back(app, before, planned, config):
    """The second is one of a run that deployed while this one waited for the lock."""
    plan = {"previous_endpoint_config": before, "created_at": planned}
    assert app.former_config(plan, {"endpoint_config": FORMER, "since": "2026-11-22T11:00:00Z"}) == config


def test_a_configuration_that_is_gone_is_told_and_the_lock_given_back(app, recover, champion, get, lock_uri):
    champion(FORMER)
    endpoint = Endpoint(OURS, "InService")
    endpoint.retired = {FORMER}
    with pytest.raises(app.FormerConfigGone, match=f"{FORMER} that it ran before is gone"):
        recover(endpoint)
    assert endpoint.config == OURS
    assert get(lock_uri)["owner"] is None


def test_no_endpoint_is_nothing_to_restore(recover):
    assert recover(Endpoint(None, "InService")) == "nothing to restore"


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        (Endpoint(OURS, "Failed"), "delete it"),
        (Endpoint(OURS, "InService", after_update="UpdateRollbackFailed"), "UpdateRollbackFailed"),
        (Endpoint(OURS, "InService", weights="f" * 64), "f" * 64),
    ],
)
def test_what_cannot_be_restored_is_told_and_stays_locked(app, recover, champion, get, lock_uri, plan, endpoint, said):
    champion(FORMER)
    with pytest.raises(app.ChampionNotRestored, match=said):
        recover(endpoint)
    assert get(lock_uri)["owner"] == plan["execution_arn"]


def test_an_endpoint_that_does_not_stand_still_is_an_error_so_that_lambda_calls_again(app, recover):
    with pytest.raises(app.EndpointStillMoves, match="still Updating"):
        recover(Endpoint(OURS, "Updating"), milliseconds_left=1_000)


def test_a_run_that_never_had_the_lock_changes_nothing(recover, put, lock_uri, example, get):
    put(lock_uri, example("lock") | {"owner": "arn:another"})
    endpoint = Endpoint(OURS, "InService")
    assert recover(endpoint) == "held no lock"
    assert endpoint.config == OURS
    assert get(lock_uri)["owner"] == "arn:another"


def test_what_a_successor_took_over_is_recovered_for_it(recover, put, lock_uri, example, get, plan, champion):
    champion(FORMER)
    put(lock_uri, example("lock") | {"owner": "arn:next", "left_by": plan["execution_arn"]})
    assert recover(Endpoint(OURS, "InService")) == f"restored {FORMER}"
    assert (get(lock_uri)["owner"], get(lock_uri)["left_by"]) == ("arn:next", None)
