"""Each role is granted what its holder calls, and no more. What cannot be read from code is listed with its source."""

import ast
import re
from pathlib import Path

import pytest
from botocore import xform_name
from botocore.session import get_session

ROOT = Path(__file__).parents[2]
FUNCTIONS = sorted(path.parent for path in (ROOT / "functions").glob("*/app.py"))

LOGGING = {"logs:CreateLogStream", "logs:PutLogEvents"}
"""https://docs.aws.amazon.com/lambda/latest/dg/lambda-intro-execution-role.html; the log group is the template's."""

EVENT_SOURCE = {"sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"}
"""https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html"""

MISSING_OR_DENIED = {"s3:ListBucket"}
"""GetObject answers 404 only to those who may list, else 403:
https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html"""

SYNC = {
    # https://docs.aws.amazon.com/step-functions/latest/dg/connect-sagemaker.html#sagemaker-iam
    "createTrainingJob": {"sagemaker:DescribeTrainingJob", "sagemaker:StopTrainingJob"},
    "createHyperParameterTuningJob": {
        "sagemaker:DescribeHyperParameterTuningJob",
        "sagemaker:StopHyperParameterTuningJob",
    },
}
SYNC_ALWAYS = {
    "sagemaker:AddTags",
    "sagemaker:ListTags",
    "events:PutTargets",
    "events:PutRule",
    "events:DescribeRule",
}
LOG_DELIVERY = {
    # https://docs.aws.amazon.com/step-functions/latest/dg/cw-logs.html#cloudwatch-iam-policy
    "logs:CreateLogDelivery",
    "logs:GetLogDelivery",
    "logs:UpdateLogDelivery",
    "logs:DeleteLogDelivery",
    "logs:ListLogDeliveries",
    "logs:PutResourcePolicy",
    "logs:DescribeResourcePolicies",
    "logs:DescribeLogGroups",
}
TRACING = {
    # https://docs.aws.amazon.com/step-functions/latest/dg/concepts-xray-tracing.html
    "xray:PutTraceSegments",
    "xray:PutTelemetryRecords",
    "xray:GetSamplingRules",
    "xray:GetSamplingTargets",
}
SCALES = {
    # https://docs.aws.amazon.com/sagemaker/latest/dg/endpoint-auto-scaling-prerequisites.html
    "sagemaker:DescribeEndpoint",
    "sagemaker:DescribeEndpointConfig",
    "sagemaker:UpdateEndpointWeightsAndCapacities",
    "cloudwatch:PutMetricAlarm",
    "cloudwatch:DescribeAlarms",
    "cloudwatch:DeleteAlarms",
    "iam:CreateServiceLinkedRole",
}
"""What who registers an endpoint with auto scaling needs beside that."""
PASSES_A_ROLE = {"createTrainingJob", "createHyperParameterTuningJob", "createModel"}

IAM_NAMES = {
    ("s3", "ListObjectsV2"): {"s3:ListBucket"},
    ("s3", "HeadObject"): {"s3:GetObject"},
    # https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html: with a versionId, GetObjectVersion
    ("s3", "GetObject"): {"s3:GetObject"},
    ("s3", "ListObjectVersions"): {"s3:ListBucketVersions"},
    # https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html: with a VersionId, DeleteObjectVersion
    ("s3", "DeleteObjects"): {"s3:DeleteObject"},
    # https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-api-permissions-reference.html
    ("sqs", "SendMessageBatch"): {"sqs:SendMessage"},
    ("stepfunctions", "DescribeExecution"): {"states:DescribeExecution"},
    ("stepfunctions", "GetExecutionHistory"): {"states:GetExecutionHistory"},
    ("stepfunctions", "ListExecutions"): {"states:ListExecutions"},
    ("stepfunctions", "StopExecution"): {"states:StopExecution"},
    ("stepfunctions", "DescribeStateMachineForExecution"): {"states:DescribeStateMachineForExecution"},
    ("sagemaker-runtime", "InvokeEndpoint"): {"sagemaker:InvokeEndpoint"},
}


VERSIONED = {
    "s3:GetObject": "s3:GetObjectVersion",
    "s3:DeleteObject": "s3:DeleteObjectVersion",
    "s3:GetObjectTagging": "s3:GetObjectVersionTagging",
    "s3:PutObjectTagging": "s3:PutObjectVersionTagging",
}


def statements_of(resources, role):
    for policy in resources[role]["Properties"]["Policies"]:
        for statement in policy["PolicyDocument"]["Statement"]:
            yield statement["Fn::If"][1] if "Fn::If" in statement else statement


def granted(resources, role):
    actions = set()
    for statement in statements_of(resources, role):
        assert statement["Effect"] == "Allow"
        actions |= {statement["Action"]} if isinstance(statement["Action"], str) else set(statement["Action"])
    return actions


def scaling_of(resources, role):
    """The actions of the policy by which several roles register endpoints with auto scaling."""
    policy = resources["ScalingPolicy"]["Properties"]
    statements = policy["PolicyDocument"]["Statement"] if {"Ref": role} in policy["Roles"] else []
    return {
        action
        for one in statements
        for action in ([one["Action"]] if isinstance(one["Action"], str) else one["Action"])
    }


def called_by(folder: Path) -> set[str]:
    """Return the IAM actions of the boto3 operations that a function's modules name."""
    trees = [ast.parse(path.read_text()) for path in folder.glob("*.py") if path.name != "documents.py"]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    services = {
        node.args[0].value
        for node in nodes
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "client" and isinstance(node.args[0], ast.Constant)
    }
    named = {node.attr for node in nodes if isinstance(node, ast.Attribute) and ast.unparse(node.value) != "re"}
    named |= {
        node.args[0].value
        for node in nodes
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".get_paginator")
    }
    actions = set()
    for service in services:
        for operation in get_session().get_service_model(service).operation_names:
            if xform_name(operation) in named:
                actions |= IAM_NAMES.get((service, operation), {f"{service}:{operation}"})
    if any(isinstance(node, ast.Attribute) and ast.unparse(node) == "documents.read" for node in nodes):
        actions.add("s3:GetObject")
    if any(isinstance(node, ast.Attribute) and ast.unparse(node) == "documents.write" for node in nodes):
        actions.add("s3:PutObject")
    if any(isinstance(node, ast.Dict) and '"VersionId":' in ast.unparse(node).replace("'", '"') for node in nodes):
        actions |= {VERSIONED[action] for action in VERSIONED.keys() & actions}
    return actions


@pytest.mark.parametrize("folder", FUNCTIONS, ids=lambda folder: folder.name)
def test_a_function_is_granted_what_it_calls_and_no_more(resources, folder):
    name = "".join(word.capitalize() for word in folder.name.split("_"))
    called = called_by(folder)
    allowed = granted(resources, f"{name}Role") | scaling_of(resources, f"{name}Role")
    allowed -= LOGGING
    events = resources[f"{name}Function"]["Properties"].get("Events", {}).values()
    if "SQS" in [event["Type"] for event in events]:
        assert allowed >= EVENT_SOURCE
        allowed -= EVENT_SOURCE
    if "s3:GetObject" in called:
        assert allowed >= MISSING_OR_DENIED
        called |= MISSING_OR_DENIED
    if "application-autoscaling:RegisterScalableTarget" in called:
        called |= SCALES
    assert allowed == called


def test_every_function_may_write_its_own_log_and_no_other(resources):
    for folder in FUNCTIONS:
        name = "".join(word.capitalize() for word in folder.name.split("_"))
        own = next(s for s in statements_of(resources, f"{name}Role") if set(s["Action"]) == LOGGING)
        assert own["Resource"] == {"Fn::GetAtt": [f"{name}LogGroup", "Arn"]}


def test_the_state_machine_is_granted_what_its_states_call_and_no_more(resources, definition):
    called = LOG_DELIVERY | TRACING
    for state in definition["States"].values():
        found = re.fullmatch(r"arn:aws:states:::(?:aws-sdk:)?(\w+):(\w+)(\.sync)?", state.get("Resource", ""))
        if not found:
            assert state["Type"] != "Task"
            continue
        service, action, sync = found.groups()
        if service == "lambda":
            called.add("lambda:InvokeFunction")
            continue
        service = {"applicationautoscaling": "application-autoscaling"}.get(service, service)
        called.add(f"{service}:{action[0].upper()}{action[1:]}")
        if sync:
            called |= SYNC[action] | SYNC_ALWAYS
        if action in PASSES_A_ROLE:
            called.add("iam:PassRole")
    called |= MISSING_OR_DENIED
    assert granted(resources, "TrainAndDeployRole") | scaling_of(resources, "TrainAndDeployRole") == called | SCALES


def test_the_state_machine_may_invoke_the_functions_that_it_invokes_and_no_other(resources, definition):
    (invoke,) = [s for s in statements_of(resources, "TrainAndDeployRole") if s["Action"] == "lambda:InvokeFunction"]
    invoked = {
        state["Arguments"]["FunctionName"]
        for state in definition["States"].values()
        if "lambda" in state.get("Resource", "")
    }
    allowed = {
        # Any version: a running execution has the one that it began with.
        resource["Fn::GetAtt"][0] if "Fn::GetAtt" in resource else resource["Fn::Sub"].removesuffix(".Arn}:*")[2:]
        for resource in invoke["Resource"]
    }
    assert allowed == invoked


def test_who_reads_or_writes_objects_may_use_the_customers_key(resources):
    holders = {
        name
        for name, resource in resources.items()
        if resource["Type"] == "AWS::IAM::Role" and granted(resources, name) & {"s3:GetObject", "s3:PutObject"}
    }
    policy = resources["DataKeyPolicy"]
    assert policy["Condition"] == "UsesKey"
    assert {role["Ref"] for role in policy["Properties"]["Roles"]} == holders
    (statement,) = policy["Properties"]["PolicyDocument"]["Statement"]
    assert set(statement["Action"]) == {"kms:Decrypt", "kms:GenerateDataKey"}
    assert statement["Resource"] == {"Ref": "KmsKeyArn"}


def test_volumes_are_under_the_customers_key_by_grants_and_outputs_by_encryption(resources):
    volumes, outputs = resources["VolumeKeyPolicy"], resources["OutputKeyPolicy"]
    jobs = {"JobRole", "EvaluationRole", "ServingRole"}
    for policy, action, holders in (
        (volumes, "kms:CreateGrant", {*jobs, "TrainAndDeployRole", "RecoverDeployRole"}),
        (outputs, "kms:Encrypt", jobs),
    ):
        assert policy["Condition"] == "UsesKey"
        assert {role["Ref"] for role in policy["Properties"]["Roles"]} == holders
        (statement,) = policy["Properties"]["PolicyDocument"]["Statement"]
        assert (statement["Action"], statement["Resource"]) == (action, {"Ref": "KmsKeyArn"})
    (statement,) = volumes["Properties"]["PolicyDocument"]["Statement"]
    assert statement["Condition"] == {"Bool": {"kms:GrantIsForAWSResource": "true"}}


IN_VPC = {
    # https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html
    "FunctionNetworkPolicy": {
        "ec2:CreateNetworkInterface",
        "ec2:DeleteNetworkInterface",
        "ec2:AssignPrivateIpAddresses",
        "ec2:UnassignPrivateIpAddresses",
        "ec2:DescribeNetworkInterfaces",
        "ec2:DescribeSubnets",
    },
    # https://docs.aws.amazon.com/sagemaker/latest/dg/sagemaker-roles.html
    "JobNetworkPolicy": {
        "ec2:CreateNetworkInterface",
        "ec2:CreateNetworkInterfacePermission",
        "ec2:DeleteNetworkInterface",
        "ec2:DeleteNetworkInterfacePermission",
        "ec2:DescribeNetworkInterfaces",
        "ec2:DescribeVpcs",
        "ec2:DescribeDhcpOptions",
        "ec2:DescribeSubnets",
        "ec2:DescribeSecurityGroups",
    },
}


@pytest.mark.parametrize("policy", IN_VPC)
def test_network_interfaces_are_granted_where_a_vpc_is_asked_for_and_only_there(resources, policy):
    assert resources[policy]["Condition"] == "UsesVpc"
    statements = resources[policy]["Properties"]["PolicyDocument"]["Statement"]
    allowed = [statement for statement in statements if statement["Effect"] == "Allow"]
    assert {action for statement in allowed for action in statement["Action"]} == IN_VPC[policy]
    for statement in allowed:
        described = all(action.startswith("ec2:Describe") for action in statement["Action"])
        assert (statement["Resource"] == "*") == described
    services = {"FunctionNetworkPolicy": "lambda.amazonaws.com", "JobNetworkPolicy": "sagemaker.amazonaws.com"}
    for name, resource in resources.items():
        if resource["Type"] == "AWS::IAM::Role":
            attached = {"Fn::If": ["UsesVpc", {"Ref": policy}, {"Ref": "AWS::NoValue"}]}
            (trust,) = resource["Properties"]["AssumeRolePolicyDocument"]["Statement"]
            has_it = attached in resource["Properties"].get("ManagedPolicyArns", [])
            assert has_it == (trust["Principal"]["Service"] == services[policy]), name


def test_the_code_of_a_function_may_not_do_what_lambda_does_in_its_name(resources):
    (denied,) = [
        statement
        for statement in resources["FunctionNetworkPolicy"]["Properties"]["PolicyDocument"]["Statement"]
        if statement["Effect"] == "Deny"
    ]
    assert set(denied["Action"]) == IN_VPC["FunctionNetworkPolicy"]
    assert list(denied["Condition"]["ArnLike"]) == ["lambda:SourceFunctionArn"]


def test_the_function_that_deletes_may_do_so_only_where_the_stack_was_told_to(resources):
    for statement in resources["ClearUpRole"]["Properties"]["Policies"][0]["PolicyDocument"]["Statement"]:
        assert statement.get("Sid") == "WriteLogs" or statement["Fn::If"][0] == "DeletesData"


def test_every_function_that_traces_may_do_so_by_its_role_alone(template, resources):
    """A policy that names its roles is made after them, which no function waits for: Lambda refused now and then."""
    assert template["Globals"]["Function"]["Tracing"] == "Active"
    functions = [item for item in resources.values() if item["Type"] == "AWS::Serverless::Function"]
    for function in functions:
        role, _ = function["Properties"]["Role"]["Fn::GetAtt"]
        assert {"Ref": "TracingPolicy"} in resources[role]["Properties"]["ManagedPolicyArns"], role
    policy = resources["TracingPolicy"]
    assert policy["Type"] == "AWS::IAM::ManagedPolicy"
    assert "Roles" not in policy["Properties"]
    (statement,) = policy["Properties"]["PolicyDocument"]["Statement"]
    assert set(statement["Action"]) == {"xray:PutTraceSegments", "xray:PutTelemetryRecords"}


def test_roles_are_passed_to_sagemaker_only(resources):
    (passing,) = [s for s in statements_of(resources, "TrainAndDeployRole") if s["Action"] == "iam:PassRole"]
    assert passing["Condition"] == {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}
    roles = ("JobRole", "EvaluationRole", "ServingRole")
    assert passing["Resource"] == [{"Fn::GetAtt": [role, "Arn"]} for role in roles]


def test_scaling_is_granted_for_the_instances_of_endpoints_alone(resources):
    registering, *_, linking = resources["ScalingPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    releasing = [
        statement
        for role in ("TrainAndDeployRole", "ClearUpRole")
        for statement in statements_of(resources, role)
        if statement["Action"] == "application-autoscaling:DeregisterScalableTarget"
    ]
    assert len(releasing) == 2
    for statement in (registering, *releasing):
        assert statement["Condition"]["StringEquals"] == {
            "application-autoscaling:service-namespace": "sagemaker",
            "application-autoscaling:scalable-dimension": "sagemaker:variant:DesiredInstanceCount",
        }
    service = "sagemaker.application-autoscaling.amazonaws.com"
    assert linking["Action"] == "iam:CreateServiceLinkedRole"
    assert linking["Condition"] == {"StringEquals": {"iam:AWSServiceName": service}}
    assert linking["Resource"]["Fn::Sub"].endswith("/AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint")


def test_nothing_is_granted_on_everything_but_what_knows_no_resources(resources):
    # https://docs.aws.amazon.com/service-authorization/latest/reference/: these actions have no resource types, and
    # log delivery is granted on * by Step Functions' own documentation.
    no_resources = (
        LOG_DELIVERY
        | TRACING
        | {
            "sagemaker:ListEndpoints",
            "sagemaker:ListEndpointConfigs",
            "sagemaker:ListModels",
            "sagemaker:ListTrainingJobs",
            "sagemaker:ListHyperParameterTuningJobs",
            "cloudwatch:PutMetricData",
            # https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_DescribeAlarms.html
            "cloudwatch:DescribeAlarms",
            "ecr:GetAuthorizationToken",
            "application-autoscaling:DescribeScalableTargets",
        }
    )
    for name, resource in resources.items():
        if resource["Type"] == "AWS::IAM::Role":
            for statement in statements_of(resources, name):
                if statement["Resource"] == "*":
                    actions = statement["Action"]
                    assert ({actions} if isinstance(actions, str) else set(actions)) <= no_resources, name


def test_every_role_takes_the_permissions_boundary(resources):
    bounded = {"Fn::If": ["IsBounded", {"Ref": "PermissionsBoundaryArn"}, {"Ref": "AWS::NoValue"}]}
    for name, resource in resources.items():
        if resource["Type"] == "AWS::IAM::Role":
            assert resource["Properties"]["PermissionsBoundary"] == bounded, name


def test_each_kind_of_job_is_somebody_else(make_plan):
    asked = make_plan()["requests"]
    training = {asked["prepare"]["RoleArn"], asked["train"]["RoleArn"]}
    assert len({*training, asked["evaluate"]["RoleArn"], asked["model"]["ExecutionRoleArn"]}) == 3


def test_only_the_service_that_needs_a_role_may_assume_it(resources):
    services = {
        "JobRole": "sagemaker.amazonaws.com",
        "EvaluationRole": "sagemaker.amazonaws.com",
        "ServingRole": "sagemaker.amazonaws.com",
        "TrainAndDeployRole": "states.amazonaws.com",
        "RetrainingRole": "scheduler.amazonaws.com",
    }
    for name, resource in resources.items():
        if resource["Type"] == "AWS::IAM::Role":
            (statement,) = resource["Properties"]["AssumeRolePolicyDocument"]["Statement"]
            assert statement["Principal"] == {"Service": services.get(name, "lambda.amazonaws.com")}
