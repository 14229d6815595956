"""The state machine's form: order, reachability, names, time limits."""

import json
import re

import pytest

from tests.contract.conftest import load_function_module

ADOPTED = {
    ("IsAdoptedJobOver", "IsDatasetPrepared"),
    ("IsAdoptedJobOver", "IsModelTrained"),
    ("IsAdoptedJobOver", "IsModelOptimized"),
    ("IsAdoptedJobOver", "IsModelEvaluated"),
    ("IsAdoptedTuningOver", "ChooseHyperparameters"),
    ("IsModelOurs", "CreateEndpointConfig"),
    ("IsEndpointConfigOurs", "FindScaling"),
    ("IsDeployOurs", "WaitForEndpoint"),
    ("IsChampionOurs", "IsScalingAskedFor"),
    ("TryAgain", "PrepareDataset"),
    ("TryAgain", "TuneHyperparameters"),
    ("TryAgain", "TrainModel"),
    ("TryAgain", "OptimizeModel"),
    ("TryAgain", "EvaluateModel"),
}
RETRAINS = {("IsTrainingSound", "TrainModel"), ("CanTrainingBeMended", "TrainModel")}
"""Where the debugger's findings ask for another training."""
GOES_ON = {("ReleaseScaling", "FindEndpoint")}
"""Where an error is as good as success: what is not scaled need not be released."""
LOOPS = {
    *RETRAINS,
    ("WaitForManagedRules", "ReviewDebugger"),
    ("WaitForLock", "LockEndpoint"),
    ("DeployEndpoint", "FindEndpoint"),
    ("WaitForFreeEndpoint", "ReadEndpoint"),
    ("HasEndpointSettled", "WaitForEndpoint"),
    ("IsRolledBack", "WaitForRollBack"),
    ("RestoreEndpoint", "WaitForRollBack"),
    ("IsAdoptedJobOver", "WaitForAdoptedJob"),
    ("IsAdoptedTuningOver", "WaitForAdoptedTuning"),
    *ADOPTED,
}
"""The only ways back: a list with more pages, polls with deadlines, one of which restores in between, and from what was
adopted to where its creation would have gone on."""

DESIGNED = [
    "PlanRun",
    "PrepareDataset",
    "TuneHyperparameters",
    "ChooseHyperparameters",
    "TrainModel",
    "ReviewDebugger",
    "OptimizeModel",
    "LockEndpoint",
    "EvaluateModel",
    "JudgeEvaluation",
    "RegisterModel",
    "CreateModel",
    "CreateEndpointConfig",
    "DeployEndpoint",
    "WaitForEndpoint",
    "VerifyEndpoint",
    "WriteReport",
    "Announce",
    "RollBackEndpoint",
    "StopTraining",
    "RejectModel",
    "FailRun",
]

TRANSIENT = re.compile(
    r"Lambda\.(ClientExecutionTimeout|Service|AWSLambda|SdkClient|TooManyRequests)Exception"
    # Throttling has no class of its own in SageMaker's model, so that it comes under the base class's name.
    r"|SageMaker\.(AmazonSageMakerException|SageMakerException|SdkClientException|ResourceLimitExceededException|ConflictException)"
    r"|ApplicationAutoScaling\.(ApplicationAutoScaling|ConcurrentUpdate|InternalService|SdkClient)Exception"
    r"|S3\.(S3Exception|SdkClientException)"
    r"|EventBridge\.(FailedEntry|AmazonEventBridgeException)"
    r"|EndpointStillMoves"  # RecoverDeploy's
)


@pytest.fixture
def states(definition):
    return definition["States"]


def ways_on(state):
    """Every state that can come next, by whatever way."""
    ways = [state[key] for key in ("Next", "Default") if key in state]
    ways += [rule["Next"] for rule in state.get("Choices", [])]
    return ways + [catcher["Next"] for catcher in state.get("Catch", [])]


def ends_reached(states, start, without):
    seen, waiting = set(), [start]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += [then for then in ways_on(states[name]) if (name, then) not in without]
    return {name for name in seen if not ways_on(states[name]) or states[name].get("End")}


def test_the_states_of_the_design_stand_in_its_order(states):
    assert [name for name in states if name in DESIGNED] == DESIGNED


def test_file_order_is_execution_order(states):
    order = list(states)
    back = {(name, then) for name in states for then in ways_on(states[name]) if order.index(then) <= order.index(name)}
    assert back == LOOPS


def test_every_state_is_reached_and_every_way_leads_to_a_state(definition, states):
    reached, waiting = set(), [definition["StartAt"]]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += ways_on(states[name])
    assert reached == set(states)


def test_every_catch_reaches_nothing_but_fail_unless_it_adopts(states):
    for name, state in states.items():
        for catcher in [one for one in state.get("Catch", []) if (name, one["Next"]) not in GOES_ON]:
            ends = ends_reached(states, catcher["Next"], without=ADOPTED | RETRAINS)
            assert ends, name
            assert {states[end]["Type"] for end in ends} == {"Fail"}, name


def test_the_only_green_end_is_announce(states):
    assert [name for name, state in states.items() if state.get("End") or state["Type"] == "Succeed"] == ["Announce"]


def test_every_state_says_what_it_is_for(states):
    assert [name for name, state in states.items() if not state.get("Comment", "").endswith(".")] == []


def test_every_task_has_a_time_limit_a_retry_on_transient_errors_and_a_catch_of_all(states):
    for name, state in states.items():
        if state["Type"] == "Task":
            assert isinstance(state["TimeoutSeconds"], int), name
            assert state["Catch"][-1]["ErrorEquals"] == ["States.ALL"], name
            retried = [error for retrier in state["Retry"] for error in retrier["ErrorEquals"]]
            assert retried, name
            assert all(TRANSIENT.fullmatch(error) for error in retried), name


def test_whoever_gives_no_reply_is_asked_again(states):
    """https://docs.aws.amazon.com/step-functions/latest/dg/bp-lambda-serviceexception.html"""
    of_functions = {f"Lambda.{one}Exception" for one in ("ClientExecutionTimeout", "Service", "AWSLambda", "SdkClient")}
    asked = {
        ":::lambda:": of_functions | {"Lambda.TooManyRequestsException"},
        ":::sagemaker:": {"SageMaker.AmazonSageMakerException", "SageMaker.SdkClientException"},
        ":::aws-sdk:sagemaker:": {"SageMaker.SageMakerException", "SageMaker.SdkClientException"},
        ":::aws-sdk:s3:": {"S3.S3Exception", "S3.SdkClientException"},
    }
    for name, state in states.items():
        for service, errors in asked.items():
            if service in state.get("Resource", ""):
                assert errors <= {error for retrier in state["Retry"] for error in retrier["ErrorEquals"]}, name


def test_a_deploy_that_its_run_left_is_waited_for_as_long_as_it_may_take(states, resources, template):
    (retrier,) = [one for one in states["RecoverDeploy"]["Retry"] if "EndpointStillMoves" in one["ErrorEquals"]]
    called = resources["RecoverDeployFunction"]["Properties"]["Timeout"] + retrier["IntervalSeconds"]
    assert retrier["MaxAttempts"] * called >= template["Parameters"]["EndpointDeadlineSeconds"]["MaxValue"]
    assert retrier["BackoffRate"] == 1
    assert hasattr(load_function_module("recover_deploy", "app"), "EndpointStillMoves")


def test_a_job_waits_a_quarter_of_an_hour_for_a_quota_that_others_have_used_up(states):
    """An instance counts for minutes after its job's end, and trials of another run for as long as they take."""
    for name, state in states.items():
        if state.get("Resource", "").endswith(".sync"):
            limited = "SageMaker.ResourceLimitExceededException"
            (retrier,) = [one for one in state["Retry"] if limited in one["ErrorEquals"]]
            assert retrier["ErrorEquals"] == [limited], name
            assert (retrier["IntervalSeconds"] * retrier["MaxAttempts"], retrier["BackoffRate"]) == (900, 1), name


def test_the_optimized_integration_of_sagemaker_is_there_to_wait_for_jobs_alone(states):
    """It refuses members that it does not know, at run time: "The field ... is not supported by Step Functions".

    aws-sdk passes the whole API: https://docs.aws.amazon.com/step-functions/latest/dg/integrate-optimized.html
    """
    for name, state in states.items():
        if ":::sagemaker:" in state.get("Resource", ""):
            assert state["Resource"].endswith(".sync"), name


def test_functions_may_run_as_long_as_their_state_waits(states, resources, template):
    standard = template["Globals"]["Function"]["Timeout"]
    for name, state in states.items():
        if state["Type"] == "Task" and "lambda" in state["Resource"]:
            function = resources[state["Arguments"]["FunctionName"]]
            assert function["Properties"].get("Timeout", standard) < state["TimeoutSeconds"], name


def test_it_is_jsonata_from_top_to_bottom_in_expressions_of_one_line(asl_text, definition):
    assert definition["QueryLanguage"] == "JSONata"
    assert asl_text.count('"QueryLanguage"') == 1
    assert not re.search(r'"(InputPath|OutputPath|ResultPath|ResultSelector|Parameters|\w+\.\$)"', asl_text)
    expressions = [text for text in _strings(json.loads(asl_text)) if text.startswith("{%")]
    assert expressions
    assert [text for text in expressions if "\n" in text or not text.endswith("%}")] == []


def test_no_expression_branches(asl_text):
    assert [text for text in _strings(json.loads(asl_text)) if text.startswith("{%") and " ? " in text] == []


def _strings(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)
