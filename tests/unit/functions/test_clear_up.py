import http.server
import json
import threading
from types import SimpleNamespace

import pytest
from botocore.exceptions import ClientError

BUCKET = "kelpie-123456789012-eu-west-1"
PATIENT = SimpleNamespace(get_remaining_time_in_millis=lambda: 900_000)


PROPERTIES = {
    "Bucket": BUCKET,
    "NamePrefix": "kelpie",
    "StateMachineArn": "arn:aws:states:eu-west-1:123456789012:stateMachine:kelpie-train-and-deploy",
    "ModelPackageGroupArn": "arn:aws:sagemaker:eu-west-1:123456789012:model-package-group/kelpie-0123456789ab",
}
OURS, SOMEBODYS = "kelpie-3f2a9c0d1e4b", "kelpie-by-hand"


class Runs:
    """SageMaker and Step Functions with what runs, and others, left: moto does not answer these as AWS does."""

    def __init__(self):
        self.configs = {"kelpie": OURS, "kelpie-cats": SOMEBODYS, "kelpies": OURS}
        self.gone = []
        self.looks = 0
        self.stopping = [f"{OURS}-train-1", f"{OURS}-tune-1-001-0a1b2c3d"]
        """Training jobs that go on when they are stopped, one ends at each look."""

    def get_paginator(self, operation):
        if operation == "list_training_jobs":
            return SimpleNamespace(paginate=self.training_jobs)
        names = {
            "list_executions": ("executions", "executionArn", ["arn:run"]),
            "list_hyper_parameter_tuning_jobs": (
                "HyperParameterTuningJobSummaries",
                "HyperParameterTuningJobName",
                [f"{OURS}-tune-1"],
            ),
            "list_endpoints": ("Endpoints", "EndpointName", list(self.configs)),
            "list_endpoint_configs": ("EndpointConfigs", "EndpointConfigName", [OURS, SOMEBODYS]),
            "list_models": ("Models", "ModelName", [OURS, SOMEBODYS]),
            "list_model_packages": ("ModelPackageSummaryList", "ModelPackageArn", ["arn:package/1", "arn:package/2"]),
        }
        member, key, found = names[operation]
        return SimpleNamespace(paginate=lambda **_: [{"NextToken": "n", member: [{key: name} for name in found]}])

    def training_jobs(self, StatusEquals, **_):  # noqa: N803 - AWS's name
        names = [f"{OURS}-train-1", "kelpies-job"]
        if any(operation == "stop_training_job" for operation, _ in self.gone):
            names = [] if StatusEquals == "InProgress" else [*self.stopping, "kelpies-job"]
            self.stopping = self.stopping[1:] if names else self.stopping
        return [{"NextToken": "n", "TrainingJobSummaries": [{"TrainingJobName": name} for name in names]}]

    def describe_endpoint(self, EndpointName):  # noqa: N803
        self.looks += 1
        status = "Updating" if self.looks == 1 else "InService"
        if ("delete_endpoint", EndpointName) in self.gone:
            status = "Deleting"
        variants = [{"VariantName": "AllTraffic"}]
        live = {"EndpointName": EndpointName, "EndpointConfigName": self.configs[EndpointName]}
        return {**live, "EndpointStatus": status, "ProductionVariants": variants}

    def deregister_scalable_target(self, ResourceId, **_):  # noqa: N803
        self.gone.append(("deregister_scalable_target", ResourceId))
        raise ClientError({"Error": {"Code": "ObjectNotFoundException", "Message": "none"}}, "DeregisterScalableTarget")

    def __getattr__(self, operation):
        def act(**names):
            (name,) = [value for key, value in names.items() if key != "cause"]
            self.gone.append((operation, name))
            if operation == "stop_training_job":
                code = {"Error": {"Code": "ValidationException", "Message": "The request was rejected: it has ended"}}
                raise ClientError(code, "StopTrainingJob")

        return act


@pytest.fixture
def app(load):
    module = load("clear_up")
    module.POLL_SECONDS = 0
    return module


@pytest.fixture
def runs(app, monkeypatch, aws):
    found = Runs()
    monkeypatch.setattr(app, "client", lambda service: aws("s3") if service == "s3" else found)
    return found


@pytest.fixture
def filled(s3):
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    for key in ("inbox/a ü.jpg", "inbox/a ü.jpg", "endpoints/kelpie/champion.json", "endpoints/kelpie/other.json"):
        s3.put_object(Bucket=BUCKET, Key=key, Body=b"x")
    s3.delete_object(Bucket=BUCKET, Key="inbox/a ü.jpg")
    return s3


@pytest.fixture
def answers(monkeypatch):
    """Where CloudFormation waits: (URL, what it was told)."""
    told = []

    class Listener(http.server.BaseHTTPRequestHandler):
        def do_PUT(self):
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_arguments):
            pass

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = http.server.HTTPServer(("127.0.0.1", 0), Listener)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/", told
    server.shutdown()
    thread.join()
    server.server_close()


def event(request_type, on_stack_deletion, url):
    return {
        "RequestType": request_type,
        "ResponseURL": url,
        "StackId": "arn:aws:cloudformation:eu-west-1:123456789012:stack/kelpie/1",
        "RequestId": "r",
        "LogicalResourceId": "Contents",
        "ResourceProperties": PROPERTIES | {"OnStackDeletion": on_stack_deletion},
    }


@pytest.mark.parametrize(("request_type", "told"), [("Create", "Delete"), ("Update", "Delete"), ("Delete", "Retain")])
def test_nothing_goes_but_with_the_stack_and_only_if_it_was_told_so(app, filled, answers, request_type, told):
    url, heard = answers
    app.handler(event(request_type, told, url), PATIENT)
    assert len(filled.list_object_versions(Bucket=BUCKET)["Versions"]) == 4
    assert [answer["Status"] for answer in heard] == ["SUCCESS"]


def test_all_that_runs_left_goes_and_nothing_of_others(app, filled, runs):
    app.clear_up(PROPERTIES, PATIENT.get_remaining_time_in_millis)
    assert filled.list_buckets()["Buckets"] == []
    assert runs.gone == [
        ("stop_execution", "arn:run"),
        ("stop_hyper_parameter_tuning_job", f"{OURS}-tune-1"),
        ("stop_training_job", f"{OURS}-train-1"),
        ("deregister_scalable_target", "endpoint/kelpie/variant/AllTraffic"),
        ("delete_endpoint", "kelpie"),
        ("delete_endpoint_config", OURS),
        ("delete_model", OURS),
        ("delete_model_package", "arn:package/1"),
        ("delete_model_package", "arn:package/2"),
        ("delete_model_package_group", PROPERTIES["ModelPackageGroupArn"]),
    ]


def test_an_endpoint_that_recover_deploy_moves_meanwhile_goes_too(app, filled, runs, monkeypatch):  # noqa: ARG001
    moved, delete = [], runs.delete_endpoint

    def delete_unless_moved(EndpointName):  # noqa: N803
        if not moved:
            moved.append(EndpointName)
            code = {"Error": {"Code": "ValidationException", "Message": "Cannot update in-progress endpoint"}}
            raise ClientError(code, "DeleteEndpoint")
        delete(EndpointName=EndpointName)

    monkeypatch.setattr(runs, "delete_endpoint", delete_unless_moved, raising=False)
    app.clear_up(PROPERTIES, PATIENT.get_remaining_time_in_millis)
    assert ("delete_endpoint", "kelpie") in runs.gone


def test_an_endpoint_that_recover_deploy_deletes_meanwhile_is_as_good(app, filled, runs, monkeypatch):
    def gone(EndpointName):  # noqa: N803
        code = {"Error": {"Code": "ValidationException", "Message": f"Could not find endpoint {EndpointName}"}}
        raise ClientError(code, "DescribeEndpoint")

    monkeypatch.setattr(runs, "describe_endpoint", gone)
    app.clear_up(PROPERTIES, PATIENT.get_remaining_time_in_millis)
    assert filled.list_buckets()["Buckets"] == []


def test_an_endpoint_that_failed_has_no_variants_and_goes_too(app, filled, runs, monkeypatch):  # noqa: ARG001
    describe = runs.describe_endpoint

    def failed(EndpointName):  # noqa: N803
        live = describe(EndpointName=EndpointName)
        del live["ProductionVariants"]
        return live | ({"EndpointStatus": "Failed"} if live["EndpointStatus"] == "InService" else {})

    monkeypatch.setattr(runs, "describe_endpoint", failed)
    app.clear_up(PROPERTIES, PATIENT.get_remaining_time_in_millis)
    assert ("delete_endpoint", "kelpie") in runs.gone


def test_the_bucket_is_emptied_when_the_last_job_has_left_what_it_had(app, filled, runs, monkeypatch):
    def upload(_seconds):
        filled.put_object(Bucket=BUCKET, Key=f"runs/{len(runs.stopping)}/model.tar.gz", Body=b"x")

    monkeypatch.setattr(app.time, "sleep", upload)
    app.clear_up(PROPERTIES, PATIENT.get_remaining_time_in_millis)
    assert runs.stopping == []
    assert filled.list_buckets()["Buckets"] == []


def test_what_is_written_after_the_last_page_goes_too(app, filled, monkeypatch):
    delete = app.delete_versions

    def delete_and_lose_a_race(s3, bucket, versions):
        delete(s3, bucket, versions)
        if len(versions) > 1:
            s3.put_object(Bucket=bucket, Key="runs/late.json", Body=b"x")

    monkeypatch.setattr(app, "delete_versions", delete_and_lose_a_race)
    app.empty(filled, BUCKET, PATIENT.get_remaining_time_in_millis)
    assert filled.list_buckets()["Buckets"] == []


def test_a_bucket_that_never_gets_empty_is_told_by_name(app, filled, monkeypatch):
    monkeypatch.setattr(app, "delete_versions", lambda *_: None)
    left = iter((60_000, 30_000, 10_000))
    with pytest.raises(app.NotEmptied, match="still holds objects: delete the stack once more"):
        app.empty(filled, BUCKET, lambda: next(left))


def test_a_job_that_does_not_stop_is_told(app, runs):
    runs.gone.append(("stop_training_job", "it"))
    with pytest.raises(app.NotEmptied, match=f"the job {OURS}-train-1 is still stopping"):
        app.await_jobs(runs, "kelpie", lambda: 5_000)


def test_a_second_try_finds_nothing_left_to_do(app, filled, runs, answers):  # noqa: ARG001
    url, heard = answers
    app.clear_up(PROPERTIES, PATIENT.get_remaining_time_in_millis)
    app.handler(event("Delete", "Delete", url), PATIENT)
    assert heard[0]["Status"] == "SUCCESS"


@pytest.mark.parametrize("looks", [0, 1])
def test_it_gives_up_while_it_can_still_say_why(app, filled, runs, looks):
    runs.looks = looks
    with pytest.raises(app.NotEmptied, match="delete the stack once more"):
        app.clear_up(PROPERTIES, lambda: 5_000)
    assert filled.list_buckets()["Buckets"] != []


def test_cloudformation_hears_what_went_wrong(app, answers, monkeypatch):
    url, heard = answers
    monkeypatch.setattr(app, "client", lambda _service: None)
    app.handler(event("Delete", "Delete", url), PATIENT)
    assert heard[0]["Status"] == "FAILED"
    assert heard[0]["Reason"].startswith("AttributeError: ")
    assert {"StackId", "RequestId", "LogicalResourceId", "PhysicalResourceId"} <= heard[0].keys()
