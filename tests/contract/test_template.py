"""The template against the files that it names and the limits that AWS sets."""

import ast
import importlib.metadata
import json
import re
from pathlib import Path

import pytest
from botocore.session import get_session

from kelpie.doctor.account import PATCHED_UNTIL, version_of
from tests.contract.conftest import load_function_module

ROOT = Path(__file__).parents[2]
READ_BY_POWERTOOLS = {"POWERTOOLS_SERVICE_NAME", "POWERTOOLS_LOG_LEVEL"}
SET_BY_LAMBDA = {"AWS_REGION"}
OUTSIDE_RUNS = {"ClassifyImageFunction", "SweepInboxFunction", "ClearUpFunction", "RetireModelsFunction"}
LONGEST_NAME = {"function": 64, "queue": 80, "state machine": 80, "log group": 512, "bucket": 63}


@pytest.fixture(scope="session")
def functions(resources):
    return {name: item["Properties"] for name, item in resources.items() if item["Type"].endswith("::Function")}


def test_a_service_that_stays_silent_is_asked_again_while_every_function_has_time(functions, template):
    invocation = load_function_module("lock_endpoint", "invocation")
    shortest = min(one.get("Timeout", template["Globals"]["Function"]["Timeout"]) for one in functions.values())
    assert shortest > 3 * (invocation.CONNECT_SECONDS + invocation.ANSWER_SECONDS)
    for name in ("VerifyEndpointFunction", "RecoverDeployFunction"):
        assert functions[name]["Timeout"] > 3 * (invocation.CONNECT_SECONDS + invocation.MODEL_SECONDS)


def test_every_substitution_of_the_state_machine_is_supplied_and_used(resources, asl_text):
    supplied = resources["TrainAndDeploy"]["Properties"]["DefinitionSubstitutions"]
    assert set(supplied) == set(re.findall(r"\$\{(\w+)\}", asl_text))


def test_each_function_substitution_is_that_function(resources):
    supplied = resources["TrainAndDeploy"]["Properties"]["DefinitionSubstitutions"]
    for key, value in supplied.items():
        if key.endswith("FunctionArn"):
            function = key.removesuffix("Arn")
            pinned = {"Ref": f"{function}.Version"}
            assert value == ({"Fn::GetAtt": [function, "Arn"]} if key == "PlanRunFunctionArn" else pinned)


def test_a_running_execution_keeps_the_functions_it_began_with(resources):
    """By version, since an alias moves. Not where a parameter is in the environment: SAM publishes no version when only
    a parameter's value changes, and the function would go on with the old one."""
    supplied = resources["TrainAndDeploy"]["Properties"]["DefinitionSubstitutions"]
    for value in supplied.values():
        if isinstance(value, dict) and value.get("Ref", "").endswith(".Version"):
            function = resources[value["Ref"].removesuffix(".Version")]["Properties"]
            assert function["AutoPublishAlias"]
            assert function["AutoPublishAliasAllProperties"] is True
            variables = function.get("Environment", {}).get("Variables", {})
            assert all(variable in ({"Ref": "Bucket"}, {"Ref": "NamePrefix"}) for variable in variables.values())


def test_the_doctor_knows_the_patches_of_every_image_that_the_template_names(resources):
    variables = resources["PlanRunFunction"]["Properties"]["Environment"]["Variables"]
    named = [variables[f"{which}_IMAGE_URI"]["Fn::If"][1] for which in ("TRAINING", "TRAINING_GPU", "SERVING")]
    assert {version_of(uri["Fn::Sub"][0]) for uri in named} <= PATCHED_UNTIL.keys()


def test_the_definition_is_where_the_template_says(resources):
    assert (ROOT / resources["TrainAndDeploy"]["Properties"]["DefinitionUri"]).is_file()


def test_every_function_has_its_handler_and_every_folder_its_function(functions, template):
    module, handler = template["Globals"]["Function"]["Handler"].split(".")
    for name, properties in functions.items():
        source = (ROOT / properties["CodeUri"] / f"{module}.py").read_text()
        defined = [node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
        assert handler in defined, name
    folders = {path.parent.name for path in (ROOT / "functions").glob("*/app.py")}
    assert {Path(properties["CodeUri"]).name for properties in functions.values()} == folders


def test_functions_states_and_folders_bear_one_name(functions, definition):
    for name, properties in functions.items():
        verb_phrase = name.removesuffix("Function")
        snake = re.sub(r"(?<!^)(?=[A-Z])", "_", verb_phrase).lower()
        assert properties["CodeUri"] == f"functions/{snake}/"
        assert properties["FunctionName"] == {"Fn::Sub": "${NamePrefix}-" + snake.replace("_", "-")}
        if name not in OUTSIDE_RUNS:
            assert verb_phrase in definition["States"]


def test_every_environment_variable_that_is_read_is_set_and_the_other_way_round(functions, template):
    everywhere = set(template["Globals"]["Function"]["Environment"]["Variables"])
    assert everywhere == READ_BY_POWERTOOLS
    for name, properties in functions.items():
        variables = set(properties.get("Environment", {}).get("Variables", {}))
        assert _environment_read(ROOT / properties["CodeUri"]) - SET_BY_LAMBDA == variables, name


def test_every_function_writes_to_a_log_group_of_its_own_that_expires(functions, resources):
    for name, properties in functions.items():
        group = properties["LoggingConfig"]["LogGroup"]["Ref"]
        assert group == name.removesuffix("Function") + "LogGroup"
        function_name = properties["FunctionName"]["Fn::Sub"]
        assert resources[group]["Properties"] == {
            "LogGroupName": {"Fn::Sub": f"/aws/lambda/{function_name}"},
            "RetentionInDays": {"Ref": "LogRetentionDays"},
        }


def test_functions_pin_what_they_install(functions):
    for properties in functions.values():
        for line in (ROOT / properties["CodeUri"] / "requirements.txt").read_text().splitlines():
            assert re.fullmatch(r"[a-z0-9-]+==[0-9.]+(post[0-9]+)?", line)


def test_functions_install_the_versions_that_the_tests_run_with(functions):
    for properties in functions.values():
        for line in (ROOT / properties["CodeUri"] / "requirements.txt").read_text().splitlines():
            package, version = line.split("==")
            assert importlib.metadata.version(package) == version


def test_names_fit_with_the_longest_prefix(template, resources):
    pattern = template["Parameters"]["NamePrefix"]["AllowedPattern"]
    longest = "a" + "9" * 9
    assert re.fullmatch(pattern, longest)
    assert not re.fullmatch(pattern, longest + "9")
    kinds = {
        "FunctionName": "function",
        "QueueName": "queue",
        "Name": "state machine",
        "LogGroupName": "log group",
        "BucketName": "bucket",
    }
    checked = set()
    for resource in resources.values():
        for key, kind in kinds.items():
            value = resource.get("Properties", {}).get(key)
            if isinstance(value, dict) and "Fn::Sub" in value:
                text = value["Fn::Sub"] if isinstance(value["Fn::Sub"], str) else value["Fn::Sub"][0]
                name = text.replace("${NamePrefix}", longest)
                name = name.replace("${AWS::AccountId}", "123456789012").replace("${AWS::Region}", "ap-northeast-1")
                name = name.replace("${Stack}", "0123456789ab")
                assert "$" not in name
                assert len(name) <= LONGEST_NAME[kind], name
                checked.add(kind)
    assert checked == set(LONGEST_NAME)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("prepare", "TrainingJobName"),
        ("tune", "HyperParameterTuningJobName"),
        ("train", "TrainingJobName"),
        ("evaluate", "TrainingJobName"),
        ("model", "ModelName"),
        ("endpoint_config", "EndpointConfigName"),
        ("endpoint", "EndpointName"),
    ],
)
def test_the_names_of_a_plan_fit_sagemakers_limits(make_plan, name, shape):
    limits = get_session().get_service_model("sagemaker").shape_for(shape).metadata
    given = make_plan()["names"][name]
    assert len(given) <= limits["max"]
    assert re.fullmatch(limits["pattern"], given)


def test_the_queue_hides_a_message_six_times_as_long_as_the_function_may_take(resources):
    # https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html
    visibility = resources["InboxQueue"]["Properties"]["VisibilityTimeout"]
    assert visibility >= 6 * resources["ClassifyImageFunction"]["Properties"]["Timeout"]


def test_after_the_tries_the_queue_lets_a_message_be_given_up_twice(resources):
    tries = int(resources["ClassifyImageFunction"]["Properties"]["Environment"]["Variables"]["MOST_TRIES"])
    assert resources["InboxQueue"]["Properties"]["RedrivePolicy"]["maxReceiveCount"] == tries + 2


def test_what_is_scaled_down_keeps_twice_what_the_network_sees_by_default(template):
    contract = json.loads((ROOT / "contracts" / "execution_input.schema.json").read_text())
    image_size_px = contract["properties"]["model"]["properties"]["image_size_px"]
    short_side_px = template["Parameters"]["InboxShortSidePx"]
    assert short_side_px["Default"] >= 2 * image_size_px["default"]
    assert short_side_px["MaxValue"] >= 2 * image_size_px["maximum"]


def test_no_function_writes_where_the_bucket_notifies(resources):
    """Nothing written below inbox/ by a role of this stack: no object can bring about another there."""
    for name, resource in resources.items():
        if resource["Type"] != "AWS::IAM::Role":
            continue
        for policy in resource["Properties"]["Policies"]:
            for entry in policy["PolicyDocument"]["Statement"]:
                statement = entry["Fn::If"][1] if "Fn::If" in entry else entry
                if any(
                    action in str(statement["Action"]) for action in ("s3:PutObject'", "s3:*", "'*'", "s3:Put*")
                ) or (statement["Action"] == "s3:PutObject"):
                    where = statement["Resource"]
                    for place in where if isinstance(where, list) else [where]:
                        prefix = place["Fn::Sub"].partition("${Bucket.Arn}/")[2].split("*")[0]
                        assert prefix, name
                        assert not prefix.startswith("inbox/"), name


def test_the_inbox_cannot_feed_itself(resources):
    """What the bucket notifies of is what the function reads, and not what it writes."""
    (queue,) = resources["Bucket"]["Properties"]["NotificationConfiguration"]["QueueConfigurations"]
    (rule,) = queue["Filter"]["S3Key"]["Rules"]
    assert rule == {"Name": "prefix", "Value": "inbox/"}
    assert queue["Event"] == "s3:ObjectCreated:*"  # which a tag that is put is not
    for found in resources["ClassifyImageRole"]["Properties"]["Policies"][0]["PolicyDocument"]["Statement"]:
        statement = found["Fn::If"][1] if "Fn::If" in found else found
        if "s3:PutObject" in statement["Action"]:
            assert statement["Resource"] == {"Fn::Sub": "${Bucket.Arn}/results/*"}


def test_the_bucket_comes_after_the_policy_that_lets_it_send(resources):
    assert resources["Bucket"]["DependsOn"] == "InboxQueuePolicy"
    statement, _tls_only = resources["InboxQueuePolicy"]["Properties"]["PolicyDocument"]["Statement"]
    source, source_variables = statement["Condition"]["ArnLike"]["aws:SourceArn"]["Fn::Sub"]
    name, name_variables = resources["Bucket"]["Properties"]["BucketName"]["Fn::Sub"]
    assert source.endswith(":s3:::" + name)
    assert source_variables == name_variables


def test_the_bucket_is_closed_encrypted_and_versioned(resources):
    bucket = resources["Bucket"]["Properties"]
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
    assert bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]


def test_the_bucket_the_queues_and_the_topic_are_reached_by_tls_only(resources):
    closed = {
        "BucketPolicy": ("s3:*", "Bucket"),
        "InboxQueuePolicy": ("sqs:*", "InboxQueue"),
        "DeadLetterQueuePolicy": ("sqs:*", "DeadLetterQueue"),
        "NoticeTopicPolicy": ("sns:Publish", "NoticeTopic"),
    }
    for name, (action, of) in closed.items():
        *_, statement = resources[name]["Properties"]["PolicyDocument"]["Statement"]
        assert (statement["Effect"], statement["Principal"], statement["Action"]) == ("Deny", "*", action)
        assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
        assert f"'{of}'" in str(statement["Resource"])


def test_a_deploy_after_a_deletion_that_kept_the_bucket_makes_another(resources):
    """The bucket's name carries the stack's own id, and what deletes the bucket is gone before what it needs is."""
    bucket = resources["Bucket"]
    assert {"Ref": "AWS::StackId"} in bucket["Properties"]["BucketName"]["Fn::Sub"][1]["Stack"]["Fn::Select"][1][
        "Fn::Split"
    ][1]["Fn::Select"][1]["Fn::Split"]
    assert (bucket["DeletionPolicy"], bucket["UpdateReplacePolicy"]) == ("RetainExceptOnCreate", "Retain")
    assert resources["Contents"]["Properties"] == {
        "ServiceToken": {"Fn::GetAtt": ["ClearUpFunction", "Arn"]},
        "Bucket": {"Ref": "Bucket"},
        "ModelPackageGroupArn": {"Ref": "ModelPackageGroup"},
        "NamePrefix": {"Ref": "NamePrefix"},
        "StateMachineArn": {"Ref": "TrainAndDeploy"},
        "OnStackDeletion": {"Ref": "OnStackDeletion"},
    }
    group = resources["ModelPackageGroup"]
    assert (
        group["Properties"]["ModelPackageGroupName"]["Fn::Sub"][1] == bucket["Properties"]["BucketName"]["Fn::Sub"][1]
    )
    assert (group["DeletionPolicy"], group["UpdateReplacePolicy"]) == ("RetainExceptOnCreate", "Retain")


def test_what_the_live_endpoint_needs_never_expires(resources):
    for rule in resources["Bucket"]["Properties"]["LifecycleConfiguration"]["Rules"]:
        assert "ExpirationInDays" not in rule or rule["Prefix"] == "features/"


def test_events_match_what_the_rule_for_mails_waits_for(resources, definition):
    pattern = resources["RunRule"]["Properties"]["EventPattern"]
    assert pattern["detail"] == {"stack": [{"Ref": "NamePrefix"}]}
    for name in ("Announce", "AnnounceFailure"):
        (entry,) = definition["States"][name]["Arguments"]["Entries"]
        assert [entry["Source"]] == pattern["source"]
        assert entry["DetailType"] in pattern["detail-type"]
        assert set(pattern["detail"]) <= set(entry["Detail"])


def test_alarms_watch_what_is_there_and_tell_the_topic(resources, make_plan):
    variant = make_plan()["requests"]["endpoint_config"]["ProductionVariants"][0]["VariantName"]
    alarms = {name: item["Properties"] for name, item in resources.items() if item["Type"] == "AWS::CloudWatch::Alarm"}
    assert len(alarms) == 10
    for name, alarm in alarms.items():
        assert alarm["AlarmActions"] == [{"Ref": "NoticeTopic"}], name
        assert alarm["AlarmName"]["Fn::Sub"].startswith("${NamePrefix}-"), name
        assert alarm["TreatMissingData"] == "notBreaching", name
        for dimension in alarm["Dimensions"]:
            target = dimension["Value"]
            if dimension["Name"] == "VariantName":
                assert target == variant
            else:
                assert (target.get("Ref") or target["Fn::GetAtt"][0]) in {*resources, "NamePrefix"}, name


def test_a_run_that_says_nothing_of_its_deploy_fits_the_shortest_deadline(template, make_plan):
    policy = make_plan()["deployment_config"]["BlueGreenUpdatePolicy"]
    shortest = template["Parameters"]["EndpointDeadlineSeconds"]["MinValue"]
    assert policy["MaximumExecutionTimeoutInSeconds"] <= shortest


def test_the_alarms_that_call_an_update_off_are_the_templates_and_may_be_looked_at(resources, plan_module):
    alarms = [item["Properties"] for item in resources.values() if item["Type"] == "AWS::CloudWatch::Alarm"]
    names = {alarm["AlarmName"]["Fn::Sub"] for alarm in alarms}
    assert {f"${{NamePrefix}}-{alarm}" for alarm in plan_module.ROLLBACK_ALARMS} <= names
    statements = resources["ServingRole"]["Properties"]["Policies"][0]["PolicyDocument"]["Statement"]
    (watching,) = [one for one in statements if one["Action"] == "cloudwatch:DescribeAlarms"]
    assert watching["Resource"] == "*"


def test_who_publishes_to_the_topic_is_let_in(resources):
    rules, alarms, _tls_only = resources["NoticeTopicPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    assert rules["Condition"] == {"ArnEquals": {"aws:SourceArn": {"Fn::GetAtt": ["RunRule", "Arn"]}}}
    assert alarms["Condition"]["ArnLike"]["aws:SourceArn"]["Fn::Sub"].endswith(":alarm:${NamePrefix}-*")
    assert "KmsMasterKeyId" not in resources["NoticeTopic"]["Properties"]


def test_the_dashboard_is_json_once_its_variables_are_filled_in(resources):
    body = resources["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"]
    widgets = json.loads(re.sub(r"\$\{[^}]+\}", "x", body))["widgets"]
    assert len({(widget["x"], widget["y"]) for widget in widgets}) == len(widgets)


def test_nothing_starts_runs_by_itself_unless_asked_for(template, resources):
    assert template["Parameters"]["RetrainSchedule"]["Default"] == ""
    assert resources["RetrainingSchedule"]["Condition"] == "Retrains"
    assert resources["RetrainingRole"]["Condition"] == "Retrains"


def test_the_outputs_that_clients_read_are_there(template):
    assert set(template["Outputs"]) == {
        "Bucket",
        "StateMachineArn",
        "EndpointName",
        "InboxUri",
        "ResultsUri",
        "InboxQueueUrl",
        "DeadLetterQueueUrl",
    }


def test_no_partition_is_taken_for_granted():
    text = (ROOT / "template.yaml").read_text() + (ROOT / "statemachine" / "train_and_deploy.asl.json").read_text()
    assert "arn:aws:" not in text
    assert "amazonaws.com/" not in text


def _environment_read(folder: Path) -> set[str]:
    """Return the keys of os.environ, or of a mapping named environment, that the modules of a folder read."""
    keys = set()
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
                mapping = ast.unparse(node.value)
                if mapping in ("os.environ", "environment"):
                    keys.add(node.slice.value)
    return keys
