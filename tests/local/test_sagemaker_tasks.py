"""SageMaker on the local cloud: from state machines, Lambda and boto3, under IAM."""

import io
import json
import os
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError

from localcloud.cloud import ACCOUNT_ID, REGION
from tests.waiting import PATIENCE_SECONDS

IMAGE = f"{ACCOUNT_ID}.dkr.ecr.{REGION}.amazonaws.com/tiny:latest"


class Jobs:
    """Training jobs of the tiny image: a Python script each."""

    def __init__(self, session, role):
        self.session, self.role = session, role
        self.bucket = f"jobs-{os.urandom(4).hex()}"
        session.client("s3").create_bucket(Bucket=self.bucket)
        self.sagemaker = session.client("sagemaker")

    def request(self, script: str, **options: Any) -> dict[str, Any]:
        return {
            "TrainingJobName": f"job-{os.urandom(4).hex()}",
            "AlgorithmSpecification": {"TrainingImage": IMAGE, "TrainingInputMode": "File"},
            "RoleArn": self.role,
            "HyperParameters": {"script": script},
            "OutputDataConfig": {"S3OutputPath": f"s3://{self.bucket}/jobs"},
            "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
            "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
            **options,
        }

    def status(self, name: str) -> str:
        return self.sagemaker.describe_training_job(TrainingJobName=name)["TrainingJobStatus"]


@pytest.fixture(scope="module")
def jobs(session, role_for) -> Jobs:
    return Jobs(session, role_for("sagemaker.amazonaws.com"))


WRITE_MODEL = "import os; open(os.environ['SM_MODEL_DIR'] + '/model.txt', 'w').write('trained')"


def task(action: str, arguments: dict, **fields: Any) -> dict[str, Any]:
    state = {"Type": "Task", "Resource": f"arn:aws:states:::{action}", "Arguments": arguments, "End": True, **fields}
    return {"QueryLanguage": "JSONata", "StartAt": "Do", "States": {"Do": state}}


def test_sync_returns_the_job_as_step_functions_does(machines, jobs):
    request = jobs.request(WRITE_MODEL)
    ended = machines.run(task("sagemaker:createTrainingJob.sync", request))
    assert ended["status"] == "SUCCEEDED", ended
    output = json.loads(ended["output"])
    assert output["TrainingJobStatus"] == "Completed"
    artifact = f"s3://{jobs.bucket}/jobs/{request['TrainingJobName']}/output/model.tar.gz"
    assert output["ModelArtifacts"]["S3ModelArtifacts"] == artifact
    assert isinstance(output["CreationTime"], int)
    assert abs(output["TrainingEndTime"] / 1000 - time.time()) < PATIENCE_SECONDS
    assert output["Tags"]["AWS_STEP_FUNCTIONS_EXECUTION_ARN"] == ended["executionArn"]


def test_a_failed_job_fails_the_state_with_its_description(machines, jobs):
    ended = machines.run(task("sagemaker:createTrainingJob.sync", jobs.request("raise SystemExit('no good')")))
    assert (ended["status"], ended["error"]) == ("FAILED", "States.TaskFailed")
    cause = json.loads(ended["cause"])
    assert cause["TrainingJobStatus"] == "Failed"
    assert "no good" in cause["FailureReason"]


def test_stopping_the_execution_stops_the_job(machines, jobs, until):
    request = jobs.request("import time; time.sleep(600)")
    retry = [{"ErrorEquals": ["States.ALL"], "IntervalSeconds": 1}]
    execution = machines.start(task("sagemaker:createTrainingJob.sync", request, Retry=retry))
    until(lambda: running(jobs, request))
    machines.session.client("stepfunctions").stop_execution(executionArn=execution)
    until(lambda: jobs.status(request["TrainingJobName"]) == "Stopped")
    assert machines.end_of(execution)["status"] == "ABORTED"


def test_the_states_timeout_stops_the_job(machines, jobs, until):
    request = jobs.request("import time; time.sleep(600)")
    ended = machines.run(task("sagemaker:createTrainingJob.sync", request, TimeoutSeconds=2))
    assert (ended["status"], ended["error"]) == ("FAILED", "States.Timeout")
    until(lambda: jobs.status(request["TrainingJobName"]) == "Stopped")


def running(jobs: Jobs, request: dict) -> bool:
    try:
        return jobs.status(request["TrainingJobName"]) == "InProgress"
    except ClientError:
        return False


@pytest.mark.parametrize(
    ("resource", "error"),
    [
        ("sagemaker:createTrainingJob.sync", "SageMaker.ResourceInUseException"),
        ("sagemaker:createTrainingJob", "SageMaker.ResourceInUseException"),
        ("aws-sdk:sagemaker:createTrainingJob", "SageMaker.ResourceInUseException"),
    ],
)
def test_a_name_in_use(machines, jobs, resource, error):
    request = jobs.request(WRITE_MODEL)
    jobs.sagemaker.create_training_job(**request)
    assert machines.run(task(resource, request))["error"] == error


@pytest.mark.parametrize(
    ("resource", "error"),
    [
        ("sagemaker:createTrainingJob.sync", "SageMaker.AmazonSageMakerException"),
        ("aws-sdk:sagemaker:createTrainingJob", "SageMaker.SageMakerException"),
    ],
)
def test_an_invalid_request(machines, jobs, resource, error):
    ended = machines.run(task(resource, jobs.request(WRITE_MODEL, TrainingJobName="not_a_name")))
    assert ended["error"] == error
    assert "trainingJobName" in ended["cause"]


def test_the_sdk_integration_returns_times_as_text(machines, jobs):
    request = jobs.request(WRITE_MODEL)
    jobs.sagemaker.create_training_job(**request)
    jobs.sagemaker.get_waiter("training_job_completed_or_stopped").wait(
        TrainingJobName=request["TrainingJobName"], WaiterConfig={"Delay": 1, "MaxAttempts": PATIENCE_SECONDS}
    )
    name = {"TrainingJobName": request["TrainingJobName"]}
    output = json.loads(machines.run(task("aws-sdk:sagemaker:describeTrainingJob", name))["output"])
    assert output["TrainingJobStatus"] == "Completed"
    assert output["CreationTime"].endswith("Z")


def may(*actions: str, **condition: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": list(actions), "Resource": "*", **condition}


RULES = may("events:PutTargets", "events:PutRule", "events:DescribeRule")
WAIT = may("sagemaker:DescribeTrainingJob", "sagemaker:StopTrainingJob")


def passing_to(service: str) -> dict[str, Any]:
    return may("iam:PassRole", Condition={"StringEquals": {"iam:PassedToService": service}})


@pytest.mark.parametrize(
    ("statements", "lacking"),
    [
        ([may("sagemaker:DescribeTrainingJob")], "sagemaker:StopTrainingJob"),
        ([may("sagemaker:*")], "events:PutTargets"),
        ([WAIT, RULES], "sagemaker:CreateTrainingJob"),
        ([WAIT, RULES, may("sagemaker:CreateTrainingJob")], "sagemaker:AddTags"),
        ([may("sagemaker:*"), RULES], "iam:PassRole"),
        ([may("sagemaker:*"), RULES, passing_to("lambda.amazonaws.com")], "iam:PassRole"),
    ],
)
def test_the_state_machines_role_decides(machines, jobs, statements, lacking):
    request = jobs.request(WRITE_MODEL)
    ended = machines.run(task("sagemaker:createTrainingJob.sync", request), statements=statements)
    assert ended["error"] == "SageMaker.AmazonSageMakerException"
    assert f"not authorized to perform: {lacking} " in ended["cause"]
    assert "Error Code: AccessDeniedException" in ended["cause"]
    with pytest.raises(ClientError, match="not found"):
        jobs.status(request["TrainingJobName"])


def test_a_role_that_may_do_just_what_a_job_needs(machines, jobs):
    statements = [
        may("sagemaker:CreateTrainingJob", "sagemaker:AddTags"),
        WAIT,
        RULES,
        passing_to("sagemaker.amazonaws.com"),
    ]
    ended = machines.run(task("sagemaker:createTrainingJob.sync", jobs.request(WRITE_MODEL)), statements=statements)
    assert ended["status"] == "SUCCEEDED", ended


def test_an_unsupported_integration_fails_by_name(machines):
    ended = machines.run(task("sagemaker:createTransformJob.sync", {}))
    assert ended["error"] == "States.Runtime"
    assert "createTransformJob" in ended["cause"]


def test_the_jobs_role_decides_on_its_access_to_s3(machines, jobs, role_for):
    denied = role_for("sagemaker.amazonaws.com", [{"Effect": "Allow", "Action": "logs:*", "Resource": "*"}])
    ended = machines.run(task("sagemaker:createTrainingJob.sync", jobs.request(WRITE_MODEL, RoleArn=denied)))
    assert json.loads(ended["cause"])["TrainingJobStatus"] == "Failed"
    assert "AccessDenied" in json.loads(ended["cause"])["FailureReason"]


def test_a_role_that_sagemaker_may_not_assume(jobs, role_for):
    with pytest.raises(ClientError, match="Could not assume role"):
        jobs.sagemaker.create_training_job(**jobs.request(WRITE_MODEL, RoleArn=role_for("lambda.amazonaws.com")))


def test_status_changes_are_events(session, jobs, until):
    sqs = session.client("sqs")
    queue = sqs.create_queue(QueueName=f"events-{os.urandom(4).hex()}")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    events = session.client("events")
    pattern = {"source": ["aws.sagemaker"], "detail-type": ["SageMaker Training Job State Change"]}
    events.put_rule(Name="jobs", EventPattern=json.dumps(pattern))
    events.put_targets(Rule="jobs", Targets=[{"Id": "queue", "Arn": arn}])
    request = jobs.request(WRITE_MODEL)
    jobs.sagemaker.create_training_job(**request)
    seen: list[str] = []

    def completed() -> bool:
        for message in sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", []):
            detail = json.loads(message["Body"])["detail"]
            if detail["TrainingJobName"] == request["TrainingJobName"]:
                seen.append(detail["TrainingJobStatus"])
        return "Completed" in seen

    until(completed)


@pytest.fixture(scope="module")
def endpoint(jobs) -> str:
    """An endpoint of the tiny image, which answers with the body it was sent."""
    return in_service(jobs, {"answer.json": b'"from the model"'})


def in_service(jobs: Jobs, files: dict[str, bytes]) -> str:
    """Deploy a model archive of these files and wait until its endpoint is in service."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as model:
        for path, body in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(body)
            model.addfile(member, io.BytesIO(body))
    name = f"Endpoint-{os.urandom(4).hex()}"
    jobs.session.client("s3").put_object(Bucket=jobs.bucket, Key=f"{name}.tar.gz", Body=content.getvalue())
    container = {"Image": IMAGE, "ModelDataUrl": f"s3://{jobs.bucket}/{name}.tar.gz"}
    jobs.sagemaker.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=jobs.role)
    variant = {"VariantName": "all", "ModelName": name, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    jobs.sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    jobs.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    jobs.sagemaker.get_waiter("endpoint_in_service").wait(
        EndpointName=name, WaiterConfig={"Delay": 1, "MaxAttempts": PATIENCE_SECONDS}
    )
    return name


def test_an_endpoint_answers(session, endpoint):
    runtime = session.client("sagemaker-runtime")
    answer = runtime.invoke_endpoint(EndpointName=endpoint, Body=b"\xff\x00\x10", ContentType="image/jpeg")
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert answer["InvokedProductionVariant"] == "all"
    assert "from the model" in answer["Body"].read().decode()


INVOKE = """
import boto3
def handler(event, context):
    runtime = boto3.client("sagemaker-runtime")
    answer = runtime.invoke_endpoint(EndpointName=event, Body=b"{}", ContentType="application/json")
    return answer["ContentType"]
"""


def test_iam_checks_an_invocation_by_the_endpoints_arn(functions, endpoint):
    def may_invoke(name: str) -> list[dict]:
        arn = f"arn:aws:sagemaker:{REGION}:{ACCOUNT_ID}:endpoint/{name.lower()}"
        return [{"Effect": "Allow", "Action": "sagemaker:InvokeEndpoint", "Resource": arn}]

    allowed = functions.create(INVOKE, may_invoke(endpoint))
    assert "json" in functions.invoke(allowed, endpoint)
    denied = functions.create(INVOKE, may_invoke("another"))
    error = functions.invoke(denied, endpoint)
    assert "AccessDenied" in error["errorMessage"]
    assert "sagemaker:InvokeEndpoint" in error["errorMessage"]


SLOW_SERVER = """
import os, time
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.reply(b"")

    def do_POST(self):
        while not os.path.exists({released!r}):
            time.sleep(0.02)
        self.reply(b"slowly")

    def reply(self, body):
        self.send_response(200)
        self.send_header("Content-Type", "text/x-own")
        self.send_header("X-Amzn-SageMaker-Custom-Attributes", "kept")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


def test_a_slow_invocation_holds_up_nothing_else_and_its_headers_are_kept(session, jobs, tmp_path):
    released = tmp_path / "released"
    name = in_service(jobs, {"serve.py": SLOW_SERVER.format(released=str(released)).encode()})
    with ThreadPoolExecutor(max_workers=1) as pool:
        slow = pool.submit(session.client("sagemaker-runtime").invoke_endpoint, EndpointName=name, Body=b"")
        time.sleep(0.2)
        session.client("s3").list_buckets()
        jobs.sagemaker.list_endpoints()
        assert not slow.done()
        released.touch()
        answer = slow.result()
    assert (answer["ContentType"], answer["CustomAttributes"], answer["Body"].read()) == (
        "text/x-own",
        "kept",
        b"slowly",
    )
    jobs.sagemaker.delete_endpoint(EndpointName=name)


def test_an_unknown_endpoint(session, machines):
    with pytest.raises(ClientError) as refused:
        session.client("sagemaker-runtime").invoke_endpoint(EndpointName="no-such-endpoint", Body=b"")
    assert refused.value.response["Error"]["Code"] == "ValidationError"
    ended = machines.run(task("aws-sdk:sagemaker:describeEndpoint", {"EndpointName": "no-such-endpoint"}))
    assert ended["error"] == "SageMaker.SageMakerException"
