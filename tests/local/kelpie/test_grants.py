"""What a run and a classified image use of what their roles are granted, as IAM saw it: nothing is granted in vain.

What one run does not use is listed, with the path on which it is used or the page of AWS that asks for it.
"""

import fnmatch
import json
import re

import pytest

NOT_FOUND = (
    "GetObject answers 404 only to those who may list: docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html"
)
LAMBDA_DOES = "done by Lambda on AWS: docs.aws.amazon.com/lambda/latest/dg/lambda-intro-execution-role.html"
POLLER = "done by Lambda's poller on AWS: docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html"
TRACES = "X-Ray is not in the local cloud: docs.aws.amazon.com/lambda/latest/dg/services-xray.html"
CONTAINER = "done by SageMaker on AWS: docs.aws.amazon.com/sagemaker/latest/dg/sagemaker-roles.html"
LOG_DELIVERY = "done by Step Functions on AWS: docs.aws.amazon.com/step-functions/latest/dg/cw-logs.html"
SYNC = ".sync integrations: docs.aws.amazon.com/step-functions/latest/dg/connect-sagemaker.html"
GROUP_TOO = "for the group too: docs.aws.amazon.com/service-authorization/latest/reference/list_amazonsagemaker.html"
SECOND_RUN = "a second run on an endpoint that is there"
ROLL_BACK = "a deploy that fails: the endpoint is restored, or deleted if it was new"
LOST_RUN = "an execution that ended in the middle of a deploy"
SCALED = "an endpoint that is scaled: tests/local/run/test_scaling.py"
SCALING_ACTS = "what auto scaling does, by the role that registers: tests/local/test_auto_scaling.py"
LOST_REPLY = "a verification that brings no reply: tests/local/run/test_ended_executions.py"
REPEATED = "a message or an event that came twice, or was lost"

UNUSED = {
    # (role, action, resource) as patterns
    ("*Role", "logs:CreateLogStream", "*:log-group:/aws/lambda/*"): LAMBDA_DOES,
    ("*Role", "logs:PutLogEvents", "*:log-group:/aws/lambda/*"): LAMBDA_DOES,
    ("*Role", "s3:ListBucket", "*"): NOT_FOUND,
    ("*Role", "xray:*", "*"): TRACES,
    ("*Role", "sagemaker:*", "*:endpoint/kelpie-*"): "endpoint_name of the execution input",
    ("*Role", "ecr:*", "*"): CONTAINER,
    ("*Role", "cloudwatch:PutMetricData", "*"): CONTAINER,
    ("*Role", "logs:DescribeLogStreams", "*"): CONTAINER,
    ("ClassifyImageRole", "sqs:*", "*"): POLLER,
    ("ClassifyImageRole", "s3:GetObject", "*/inbox/*"): "an object that was put while the bucket had no versions",
    ("ClassifyImageRole", "s3:GetObject", "*/results/*"): REPEATED,
    ("JobRole", "s3:PutObject", "*/features/*"): "tuning.mode frozen_features",
    ("LockEndpointRole", "states:DescribeExecution", "*"): "a lock that somebody else holds",
    ("PlanRunRole", "s3:GetObject", "*"): "model.weights names an object in S3",
    ("PlanRunRole", "sagemaker:DescribeEndpoint", "*"): SECOND_RUN,
    ("RecoverDeployRole", "*", "*"): LOST_RUN,
    (
        "RetireModelsRole",
        "sagemaker:Delete*",
        "*",
    ): "models beyond KeepModels: tests/unit/functions/test_retire_models.py",
    ("ReviewDebuggerRole", "events:PutEvents", "*"): "a rule that found an issue: tests/local/run/test_retrains.py",
    ("ReviewDebuggerRole", "sagemaker:DescribeTrainingJob", "*"): "SageMaker's own Debugger is asked for",
    ("ServingRole", "s3:PutObject", "*/capture/*"): "serving.data_capture_percent",
    ("ServingRole", "cloudwatch:DescribeAlarms", "*"): "serving.bake_seconds of an update",
    ("SweepInboxRole", "*", "*"): "every few hours: tests/unit/functions/test_sweep_inbox.py",
    ("WriteReportRole", "logs:GetLogEvents", "*"): "a run that failed: tests/local/run/test_deploys.py",
    ("TrainAndDeployRole", "logs:*", "*"): LOG_DELIVERY,
    ("TrainAndDeployRole", "events:PutEvents", "*"): "MiniStack does not ask IAM for a state machine's own events",
    ("TrainAndDeployRole", "lambda:InvokeFunction", "*:kelpie-recover-deploy:*"): ROLL_BACK,
    ("TrainAndDeployRole", "application-autoscaling:[!D]*", "*"): SCALED,
    ("TrainAndDeployRole", "application-autoscaling:Deregister*", "*"): SCALED,
    ("TrainAndDeployRole", "cloudwatch:*", "*"): SCALING_ACTS,
    ("TrainAndDeployRole", "iam:CreateServiceLinkedRole", "*"): SCALING_ACTS,
    ("TrainAndDeployRole", "sagemaker:UpdateEndpointWeightsAndCapacities", "*"): SCALING_ACTS,
    ("TrainAndDeployRole", "sagemaker:ListTags", "*"): SYNC,
    ("TrainAndDeployRole", "sagemaker:CreateModelPackage", "*:model-package-group/*"): GROUP_TOO,
    ("TrainAndDeployRole", "s3:GetObject", "*"): LOST_REPLY,
    ("TrainAndDeployRole", "sagemaker:DescribeModel", "*"): "a reply that was lost: is the model that is there ours?",
    ("TrainAndDeployRole", "sagemaker:DescribeEndpointConfig", "*"): "a reply that was lost, as for the model",
    ("TrainAndDeployRole", "sagemaker:UpdateEndpoint", "*"): SECOND_RUN,
    ("TrainAndDeployRole", "sagemaker:DeleteEndpoint", "*"): ROLL_BACK,
}


@pytest.mark.slow
def test_nothing_is_granted_in_vain(live, trained):
    assert trained["status"] == "SUCCEEDED"
    image = next((live.folder / "photos" / "test" / "cat").iterdir())
    live.ok("classify", str(image))
    calls = [json.loads(line) for line in (live.folder / "calls.jsonl").read_text().splitlines()]
    used = {
        (role, call["action"], call["resource"]) for call in calls if (role := role_of(call["principal"])) is not None
    }
    granted = set(grants(live.cloud.session().client("iam")))
    assert {role for role, _action, _resource in granted} >= {role for role, _action, _resource in used}
    assert sorted(grant for grant in granted if not is_used(grant, used) and not is_listed(grant)) == []
    # What is listed is granted still: a line that outlives its grant says so here.
    assert [entry for entry in UNUSED if not any(matches(grant, entry) for grant in granted)] == []


def is_used(grant, used):
    role, action, pattern = grant
    return any((who, what) == (role, action) and fnmatch.fnmatchcase(on, pattern) for who, what, on in used)


def is_listed(grant):
    return any(matches(grant, entry) for entry in UNUSED)


def matches(grant, entry):
    return all(fnmatch.fnmatchcase(value, pattern) for value, pattern in zip(grant, entry, strict=True))


def role_of(principal):
    """Return the logical id of the role of a session, or None for anybody else."""
    found = re.search(r":assumed-role/kelpie-(\w+Role)-", principal)
    return found[1] if found else None


def grants(iam):
    """Yield (logical id of the role, action, resource pattern) of every policy of the stack's roles."""
    for role in iam.list_roles()["Roles"]:
        if found := re.fullmatch(r"kelpie-(\w+Role)-\w+", role["RoleName"]):
            for policy in iam.list_role_policies(RoleName=role["RoleName"])["PolicyNames"]:
                document = iam.get_role_policy(RoleName=role["RoleName"], PolicyName=policy)["PolicyDocument"]
                for statement in document["Statement"]:
                    for action in listed(statement["Action"]):
                        for resource in listed(statement["Resource"]):
                            yield found[1], action, resource


def listed(value):
    return value if isinstance(value, list) else [value]
