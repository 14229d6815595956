"""What a run asks of SageMaker: every request keeps its API, with every option of the stack."""

import re

import botocore.session
import botocore.validate
import pytest

from tests.contract.walks.conftest import ADOPTED_BY, JOBS_BY_STATE, LOCKED, PACKAGE_ARN, scaled_plan

CALLED = re.compile(r":(sagemaker|applicationautoscaling):(\w+)")


OPTIONS = {
    "none": {},
    "VPC": {"subnets": ("subnet-0a", "subnet-0b"), "security_groups": ("sg-0a",)},
    "key": {"key_arn": "arn:aws:kms:eu-west-1:123456789012:key/00000000-0000-0000-0000-000000000000"},
    "managed debugger": {"debugger_rules_image": "503895931360.dkr.ecr.us-east-1.amazonaws.com/rules:latest"},
    "isolation": {"isolated": True},
}


@pytest.mark.parametrize("option", [*OPTIONS, "all"])
def test_every_creation_keeps_sagemakers_api_with_each_option_of_the_stack(
    walk, results, make_plan, definition, option
):
    everything = {key: value for options in OPTIONS.values() for key, value in options.items()}
    plan = make_plan(everything if option == "all" else OPTIONS[option], serving={"variant": "fastest"})
    results["PlanRun"]["Payload"]["plan"] = plan
    run = walk(results)
    assert run.status == "SUCCEEDED"
    assert requests_checked(run, definition) >= {*JOBS_BY_STATE, *ADOPTED_BY}
    jobs = [request for state in JOBS_BY_STATE for request in run.requests[state]]
    jobs = [job.get("TrainingJobDefinition", job) for job in jobs]
    (model,) = run.requests["CreateModel"]
    in_all = option == "all"
    for one in [*jobs, model]:
        assert ("VpcConfig" in one) == (in_all or option == "VPC")
        assert one.get("EnableNetworkIsolation", False) == (in_all or option == "isolation")
    for job in jobs:
        keys = (job["ResourceConfig"].get("VolumeKmsKeyId"), job["OutputDataConfig"].get("KmsKeyId"))
        assert keys == ((everything["key_arn"],) * 2 if in_all or option == "key" else (None, None))
        pip = job.get("Environment", {}).get("PIP_FIND_LINKS")
        assert pip == ("/opt/ml/input/data/wheels" if in_all or option == "isolation" else None)
    for state in (*JOBS_BY_STATE, *ADOPTED_BY):
        (request,) = run.requests[state]
        assert request["Tags"] == [
            {"Key": "application", "Value": "kelpie"},
            {"Key": "run", "Value": plan["run_id"]},
        ]


@pytest.mark.parametrize(
    ("instance_type", "encrypted"),
    [("ml.m5.xlarge", True), ("ml.c5.large", True), ("ml.p3.2xlarge", True), ("ml.m7i.large", True)]
    + [(f"ml.{family}.xlarge", False) for family in ("m5d", "g4dn", "g5", "p4d", "c6gd", "trn1", "m5dn")],
)
def test_a_volume_that_encrypts_itself_is_given_no_key(make_plan, instance_type, encrypted):
    plan = make_plan(OPTIONS["key"], instances={"train": instance_type})
    assert ("VolumeKmsKeyId" in plan["requests"]["train"]["ResourceConfig"]) is encrypted


def test_every_request_to_aws_keeps_its_api(walk, results, updating, managed, definition, plan, make_plan, task_error):
    rolled_back = {**updating, "VerifyEndpoint": task_error("EndpointAnswersDiffer")}
    rolled_back["CheckRollBack"] = [
        {"EndpointStatus": "InService", "EndpointConfigName": plan["names"]["endpoint_config"]},
        {"EndpointStatus": "InService", "EndpointConfigName": "former"},
    ]
    deleted = {**results, "VerifyEndpoint": task_error("EndpointAnswersDiffer")}
    deleted["CheckRollBack"] = {
        "EndpointStatus": "InService",
        "EndpointConfigName": plan["names"]["endpoint_config"],
    }
    scaled = {**updating, "PlanRun": {"Payload": {"plan_uri": "s3://b/plan.json", "plan": scaled_plan(make_plan)}}}
    checked = set()
    in_use, refused = task_error("SageMaker.ResourceInUseException"), task_error("SageMaker.SageMakerException")
    adopted = {**results, **dict.fromkeys(JOBS_BY_STATE, in_use), **dict.fromkeys(ADOPTED_BY, refused)}
    for given in (results, updating, rolled_back, deleted, adopted, managed, scaled):
        checked |= requests_checked(walk(given), definition)
    assert checked == {name for name, state in definition["States"].items() if CALLED.search(state.get("Resource", ""))}


def requests_checked(run, definition):
    """Hold every request of a run to the API of SageMaker or auto scaling, and return the states that made one."""
    session, names = botocore.session.get_session(), {"applicationautoscaling": "application-autoscaling"}
    checked = set()
    for name, requests in run.requests.items():
        found = CALLED.search(definition["States"][name]["Resource"])
        if found:
            model = session.get_service_model(names.get(found[1], found[1]))
            operation = model.operation_model(found[2][0].upper() + found[2][1:])
            for request in requests:
                report = botocore.validate.ParamValidator().validate(request, operation.input_shape)
                assert not report.has_errors(), f"{name}: {report.generate_report()}"
                assert _beyond_pattern(request, operation.input_shape) == []
                checked.add(name)
    return checked


def test_jobs_carry_the_plans_hyperparameters_and_the_chosen_ones(walk, results, plan):
    run = walk(results)
    (request,) = run.requests["TrainModel"]
    chosen = results["ChooseHyperparameters"]["Payload"]["hyperparameters"]
    assert request["HyperParameters"] == {**plan["requests"]["train"]["HyperParameters"], **chosen}
    (evaluation,) = run.requests["EvaluateModel"]
    assert [channel["ChannelName"] for channel in evaluation["InputDataConfig"]] == [
        "code",
        "manifest",
        "dataset",
        "model",
    ]
    model_channel = evaluation["InputDataConfig"][-1]["DataSource"]["S3DataSource"]
    assert model_channel["S3Uri"] == results["OptimizeModel"]["ModelArtifacts"]["S3ModelArtifacts"]


@pytest.mark.parametrize("names", [[], ["champion"], ["champion", "champion_manifest"]])
def test_the_champion_is_evaluated_beside_the_model(walk, results, names):
    channels = [
        {**results["PlanRun"]["Payload"]["plan"]["requests"]["evaluate"]["InputDataConfig"][0], "ChannelName": name}
        for name in names
    ]
    run = walk({**results, "LockEndpoint": {"Payload": {**LOCKED, "champion_channels": channels}}})
    given = run.requests["EvaluateModel"][0]["InputDataConfig"]
    assert [channel["ChannelName"] for channel in given] == ["code", "manifest", "dataset", "model", *names]


@pytest.mark.parametrize(("verdict", "status"), [("accept", "Approved"), ("reject", "Rejected")])
def test_every_model_that_was_judged_is_registered_and_an_approved_one_knows_its_package(
    walk, results, plan, verdict, status
):
    results["JudgeEvaluation"]["Payload"] |= {"verdict": verdict, "reason": "so " * 1000}
    run = walk(results)
    (request,) = run.requests["RegisterModel"]
    assert request["ModelApprovalStatus"] == status
    assert len(request["ModelPackageDescription"]) == 1024
    metadata = request["CustomerMetadataProperties"]
    assert (metadata["run_id"], metadata["data_digest"]) == (plan["run_id"], "3" * 64)
    for value in metadata.values():
        assert re.fullmatch(r"[\w .:/=+\-@]{1,256}", value)
    if verdict == "accept":
        (model,) = run.requests["CreateModel"]
        assert model["PrimaryContainer"]["Environment"] == {
            "MODEL_PACKAGE_ARN": PACKAGE_ARN,
            "RAYSERVE_BACKEND_URL": "http://127.0.0.1:8001",
        }
        assert run.requests["VerifyEndpoint"][0]["Payload"]["model_package_arn"] == PACKAGE_ARN


def _beyond_pattern(value, shape, path=""):
    """Members that break a pattern, an enumeration or a length, which botocore's own validator does not look at."""
    if shape.type_name == "structure":
        return [
            wrong for key, item in value.items() for wrong in _beyond_pattern(item, shape.members[key], f"{path}.{key}")
        ]
    if shape.type_name == "list":
        return [wrong for item in value for wrong in _beyond_pattern(item, shape.member, f"{path}[]")]
    if shape.type_name == "map":
        return [
            wrong
            for key, item in value.items()
            for wrong in _beyond_pattern(key, shape.key, path) + _beyond_pattern(item, shape.value, f"{path}.{key}")
        ]
    if shape.type_name != "string":
        return []
    wrong = []
    pattern = shape.metadata.get("pattern")
    # Classes of Unicode and halves of UTF-16, which Python's re does not know; `test_every_model_that_was_judged...`
    # holds the first to less.
    pattern = None if pattern and (r"\p{" in pattern or r"\uD800" in pattern) else pattern
    if pattern and not re.search(f"^(?:{pattern})$", value):
        wrong.append(f"{path}: {value!r} does not match {pattern}")
    if shape.enum and value not in shape.enum:
        wrong.append(f"{path}: {value!r} is not one of {shape.enum}")
    if not shape.metadata.get("min", 0) <= len(value) <= shape.metadata.get("max", len(value)):
        wrong.append(f"{path}: {value!r} has {len(value)} characters")
    return wrong
