"""Deploying a stack with real clients: packaging, change sets, updates, and failures that name the resource."""

import io
import json
import shutil
import time
import zipfile
from pathlib import Path

import pytest

from localcloud import DeploymentFailed, PackagingFailed, deploy
from localcloud.packaging import function_package, zipped

STACK = Path(__file__).parent / "tiny_stack"


@pytest.fixture(scope="module")
def outputs(session) -> dict[str, str]:
    return deploy(session, STACK / "template.yaml", "tiny", {"Prefix": "first"})


def test_the_function_carries_linked_folders_and_requirements(functions, outputs):
    answer = functions.invoke(outputs["Answer"], {"number": 1})
    assert answer == {"greeting": "hello from a linked folder", "million": "1.0 million", "number": 2}


def test_the_state_machine_calls_the_function(machines, outputs):
    states = machines.session.client("stepfunctions")
    ends = {}
    for given in ({"number": 4}, {"fail": True}):
        execution = states.start_execution(stateMachineArn=outputs["Machine"], input=json.dumps(given))["executionArn"]
        ended = machines.end_of(execution)
        ends[ended["status"]] = ended
    assert json.loads(ends["SUCCEEDED"]["output"])["number"] == 5
    assert (ends["FAILED"]["error"], ends["FAILED"]["cause"]) == ("Refused", "as asked")


def test_objects_reach_the_function_through_the_queue(session, outputs, until):
    s3, bucket = session.client("s3"), outputs["Bucket"]
    s3.put_object(Bucket=bucket, Key="in/a ü+b.txt", Body=b"x")
    until(lambda: s3.list_objects_v2(Bucket=bucket, Prefix="copied/").get("Contents"))
    copied = s3.list_objects_v2(Bucket=bucket, Prefix="copied/")["Contents"]
    assert [item["Key"] for item in copied] == ["copied/in/a ü+b.txt"]


def test_an_unchanged_stack_is_left_alone(session, outputs):
    deploy(session, STACK / "template.yaml", "tiny", {})  # whatever another test has made of it
    lines: list[str] = []
    assert deploy(session, STACK / "template.yaml", "tiny", {}, lines.append) == outputs
    assert lines[-1] == "tiny is up to date"


def test_an_update_changes_what_changed_and_keeps_parameters(session, functions, outputs, tmp_path):
    template = copy_of_the_stack(tmp_path)
    app = template.parent / "functions" / "answer" / "app.py"
    app.write_text(app.read_text().replace('event.get("number", 0) + 1', '"changed"'))
    lines: list[str] = []
    assert deploy(session, template, "tiny", {"Suffix": "new"}, lines.append)["Bucket"] == outputs["Bucket"]
    assert functions.invoke(outputs["Answer"], {})["number"] == "changed"
    assert (
        session.client("lambda").get_function(FunctionName=outputs["Answer"])["Configuration"]["Description"] == "new"
    )
    assert "UPDATE_COMPLETE AWS::Lambda::Function AnswerFunction" in lines


def copy_of_the_stack(folder: Path) -> Path:
    shutil.copytree(STACK, folder / "stack", symlinks=True)
    return folder / "stack" / "template.yaml"


def test_a_failure_names_the_resource_and_a_new_try_replaces_it(session, tmp_path):
    template = copy_of_the_stack(tmp_path)
    good = template.read_text()
    template.write_text(good.replace("Handler: app.answer", "Handler: app.answer\n      Runtime: nodejs22.x"))
    lines: list[str] = []
    with pytest.raises(DeploymentFailed) as failed:
        deploy(session, template, "again", {"Prefix": "again"}, lines.append)
    assert failed.value.resource == "AnswerFunction"
    assert "nodejs22.x is not supported" in failed.value.reason
    assert any(line.startswith("CREATE_FAILED AWS::Lambda::Function AnswerFunction") for line in lines)
    template.write_text(good)
    assert deploy(session, template, "again", {"Prefix": "again"})["Bucket"].startswith("again-")


def test_an_unknown_resource_type_is_refused(session, tmp_path):
    template = tmp_path / "template.yaml"
    template.write_text("Resources:\n  Group: {Type: 'AWS::SageMaker::FeatureGroup'}\n")
    with pytest.raises(DeploymentFailed, match="FeatureGroup"):
        deploy(session, template, "unknown", {})


GROUP = """
Resources:
  Group:
    Type: AWS::SageMaker::ModelPackageGroup
    Properties: {ModelPackageGroupName: kelp-models, ModelPackageGroupDescription: all, Tags: [{Key: k, Value: one}]}
Outputs:
  Arn: {Value: !Ref Group}
  Status: {Value: !GetAtt Group.ModelPackageGroupStatus}
"""


def test_a_model_package_group_blocks_the_deletion_of_its_stack_while_it_holds_versions(session, tmp_path, until):
    sagemaker, stacks = session.client("sagemaker"), session.client("cloudformation")
    template = tmp_path / "template.yaml"
    template.write_text(GROUP)
    outputs = deploy(session, template, "models", {})
    arn = sagemaker.describe_model_package_group(ModelPackageGroupName="kelp-models")["ModelPackageGroupArn"]
    assert outputs == {"Arn": arn, "Status": "Completed"}
    version = sagemaker.create_model_package(ModelPackageGroupName="kelp-models")["ModelPackageArn"]

    template.write_text(GROUP.replace("one", "two"))
    deploy(session, template, "models", {})
    tags = {tag["Key"]: tag["Value"] for tag in sagemaker.list_tags(ResourceArn=arn)["Tags"]}
    assert tags["k"] == "two"

    stack_id = stacks.describe_stacks(StackName="models")["Stacks"][0]["StackId"]

    def status() -> str:
        return stacks.describe_stacks(StackName=stack_id)["Stacks"][0]["StackStatus"]

    stacks.delete_stack(StackName="models")
    until(lambda: status() == "DELETE_FAILED")
    sagemaker.delete_model_package(ModelPackageName=version)
    stacks.delete_stack(StackName="models")
    until(lambda: status() == "DELETE_COMPLETE")
    assert sagemaker.list_model_package_groups(NameContains="kelp-models")["ModelPackageGroupSummaryList"] == []


def test_a_missing_folder_names_the_resource(session, tmp_path):
    template = copy_of_the_stack(tmp_path)
    shutil.rmtree(template.parent / "functions")
    with pytest.raises(
        PackagingFailed, match=r"AnswerFunction: CodeUri names .*functions/answer, which does not exist"
    ):
        deploy(session, template, "missing", {})


def test_requirements_that_cannot_be_installed_are_named(tmp_path):
    (tmp_path / "requirements.txt").write_text("./no-such-folder\n")
    with pytest.raises(PackagingFailed, match=r"Fn: .*requirements.txt could not be installed"):
        function_package("Fn", tmp_path)


def test_the_same_files_make_the_same_package(tmp_path):
    (tmp_path / "a.py").write_text("A = 1")
    first = zipped({"a.py": tmp_path / "a.py"})
    time.sleep(0.01)
    (tmp_path / "a.py").write_text("A = 1")
    assert zipped({"a.py": tmp_path / "a.py"}) == first
    assert zipfile.ZipFile(io.BytesIO(first)).read("a.py") == b"A = 1"
