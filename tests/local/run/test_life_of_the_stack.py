"""The stack while it lives: updated during a run, an update that fails, deletion with a live endpoint, isolation."""

import os
import shutil
from pathlib import Path

import pytest

from localcloud import DeploymentFailed, deploy
from localcloud.isolated import can_isolate

BROKEN = """\
  BrokenFunction:
    Type: AWS::Serverless::Function
    # So that there is something to roll back.
    DependsOn: [JudgeEvaluationFunction, TrainAndDeploy]
    Properties:
      CodeUri: functions/clear_up/
      Runtime: nodejs22.x
      Role: !GetAtt ClearUpRole.Arn
"""
TRIALS = 12  # one at a time, so that a run goes on for longer than an update takes


def changed(product: Path, folder: Path, file: str, old: str, new: str) -> Path:
    """A copy of the product with one change; return its template."""
    shutil.copytree(product.parent, folder / "product")
    path = folder / "product" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return folder / "product" / "template.yaml"


@pytest.fixture
def own_stack(make_stack):
    return make_stack(f"t{os.urandom(3).hex()}")


def delete(stack, until) -> None:
    stacks = stack.client("cloudformation")
    stack_id = stacks.describe_stacks(StackName=stack.name)["Stacks"][0]["StackId"]
    stacks.delete_stack(StackName=stack.name)

    def status() -> str:
        return stacks.describe_stacks(StackName=stack_id)["Stacks"][0]["StackStatus"]

    until(lambda: not status().endswith("_IN_PROGRESS"))
    assert status() == "DELETE_COMPLETE"


def test_a_run_keeps_the_code_that_it_began_with_when_the_stack_is_updated(own_stack, product, session, tmp_path):
    stack = own_stack
    tuning = {"max_jobs": TRIALS, "max_parallel_jobs": 1, "epochs": 1, "ranges": {"batch_size": [2]}}
    running = stack.start(stack.dataset(), tuning=tuning)
    stack.wait_for_state(running, "TuneHyperparameters")
    handler = "def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:\n"
    newer = changed(
        product,
        tmp_path,
        "functions/judge_evaluation/app.py",
        handler,
        f"{handler}    raise EvaluationMismatch('the newer code')\n",
    )
    deploy(session, newer, stack.name, {})
    assert "JudgeEvaluation" not in stack.states(running), "the run was over before the update: raise TRIALS"
    ended = stack.end_of(running)
    assert ended["status"] == "SUCCEEDED", f"{ended.get('error')}: {ended.get('cause')}"
    later = stack.run(stack.dataset())
    assert (later["error"], "the newer code" in later["cause"]) == ("EvaluationMismatch", True)


def test_an_update_that_fails_leaves_what_was_there(champion, product, session, tmp_path, until):
    stacks, functions = champion.client("cloudformation"), champion.client("lambda")
    machine = champion.outputs["StateMachineArn"]
    name = f"{champion.name}-judge-evaluation"

    def deployed():
        definition = champion.client("stepfunctions").describe_state_machine(stateMachineArn=machine)["definition"]
        return definition, functions.get_function(FunctionName=name)["Configuration"]["CodeSha256"]

    before, endpoint = deployed(), champion.endpoint()["EndpointConfigName"]
    broken = changed(product, tmp_path, "template.yaml", "  ClearUpFunction:\n", BROKEN + "  ClearUpFunction:\n")
    judge = broken.parent / "functions" / "judge_evaluation" / "app.py"
    judge.write_text(judge.read_text() + "\nNEWER = True\n")
    with pytest.raises(DeploymentFailed, match="BrokenFunction"):
        deploy(session, broken, champion.name, {})

    def status() -> str:
        return stacks.describe_stacks(StackName=champion.name)["Stacks"][0]["StackStatus"]

    until(lambda: not status().endswith("_IN_PROGRESS"))
    assert status() == "UPDATE_ROLLBACK_COMPLETE"
    assert deployed() == before
    assert champion.endpoint()["EndpointConfigName"] == endpoint
    assert champion.answer()["model"]["weights_sha256"]


@pytest.mark.parametrize("on_deletion", ["Retain", "Delete"])
def test_a_live_endpoint_outlives_the_stack_or_goes_with_it(own_stack, product, session, until, on_deletion):
    stack = own_stack
    ended = stack.run(stack.dataset())
    assert ended["status"] == "SUCCEEDED", f"{ended.get('error')}: {ended.get('cause')}"
    if on_deletion == "Delete":
        deploy(session, product, stack.name, {"OnStackDeletion": "Delete"})
    delete(stack, until)
    listed = stack.client("sagemaker").list_endpoints(NameContains=stack.name)["Endpoints"]
    buckets = [bucket["Name"] for bucket in stack.client("s3").list_buckets()["Buckets"]]
    kept = on_deletion == "Retain"
    assert [endpoint["EndpointStatus"] for endpoint in listed] == (["InService"] if kept else [])
    assert (stack.outputs["Bucket"] in buckets) is kept
    if kept:
        assert stack.answer()["model"]["weights_sha256"]
        stack.client("sagemaker").delete_endpoint(EndpointName=stack.name)


@pytest.mark.skipif(not can_isolate(), reason="this machine has no network namespaces for its users")
def test_a_run_whose_jobs_have_no_network_finds_all_that_they_need_in_the_bucket(own_stack, product, session):
    stack = own_stack
    options = {"NetworkIsolation": "true", "SubnetIds": "subnet-0a,subnet-0b", "SecurityGroupIds": "sg-0a"}
    deploy(session, product, stack.name, {**options, "CostTags": "CostCenter=42"})
    refused = stack.run(stack.dataset())
    assert (refused["error"], "make wheels" in refused["cause"]) == ("InvalidInput", True)
    for image in ("training", "serving"):
        stack.client("s3").put_object(Bucket=stack.outputs["Bucket"], Key=f"wheels/{image}/none.whl", Body=b"")
    execution = stack.start(stack.dataset())
    ended = stack.end_of(execution)
    assert ended["status"] == "SUCCEEDED", f"{ended.get('error')}: {ended.get('cause')}"
    sagemaker = stack.client("sagemaker")
    jobs = [name for name in stack.paid_jobs(execution) if not name.endswith("-tune-1")]
    described = [sagemaker.describe_training_job(TrainingJobName=name) for name in jobs]
    assert len(described) == 4
    for job in described:
        assert job["EnableNetworkIsolation"] is True
        assert job["VpcConfig"] == {"Subnets": ["subnet-0a", "subnet-0b"], "SecurityGroupIds": ["sg-0a"]}
    for arn in (described[0]["TrainingJobArn"], stack.endpoint()["EndpointArn"]):
        tags = {tag["Key"]: tag["Value"] for tag in sagemaker.list_tags(ResourceArn=arn)["Tags"]}
        assert tags.items() >= {"CostCenter": "42", "run": stack.run_id(execution)}.items()
