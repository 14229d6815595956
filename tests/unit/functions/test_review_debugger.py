import json

import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError

THROTTLED = ClientError({"Error": {"Code": "ThrottlingException", "Message": "Rate exceeded"}}, "PutEvents")
UNREACHABLE = ConnectTimeoutError(endpoint_url="https://events")


@pytest.fixture
def app(load):
    return load("review_debugger")


@pytest.fixture
def training(plan):
    """The first attempt, as the state machine tells of it."""
    return {
        "attempt": 1,
        "job": plan["names"]["train"],
        "checkpoints": plan["locations"]["train_checkpoints"],
        "hyperparameters": {"learning_rate": "0.1", "eps": "1e-08", "weight_decay": "0.01", "batch_size": "64"},
    }


@pytest.fixture
def event(plan_uri, training):
    return {"plan_uri": plan_uri, "training": training, "attempts": [], "failed": False, "late": False}


@pytest.fixture
def refusals():
    """What EventBridge says to the requests to come: an error of the request, or how many of its entries it refuses."""
    return []


@pytest.fixture
def published(app, monkeypatch, refusals):
    """The events that EventBridge took."""
    entries = []

    class Events:
        def put_events(self, Entries):  # noqa: N803 - botocore's own name
            assert len(Entries) <= 10
            refusal = refusals.pop(0) if refusals else 0
            if isinstance(refusal, Exception):
                raise refusal
            entries.extend(Entries[refusal:])
            failed = [{"ErrorCode": "InternalFailure", "ErrorMessage": "Try again"}] * refusal
            return {"FailedEntryCount": refusal, "Entries": [*failed, *({"EventId": "1"} for _ in Entries[refusal:])]}

    original = app.client
    given = {"events": Events()}
    monkeypatch.setattr(app, "client", lambda service, config=None: given.get(service) or original(service, config))
    monkeypatch.setattr(app.announce.__globals__["time"], "sleep", lambda _: None)
    return entries


@pytest.fixture
def decide(app, training, plan):
    """Review findings under the plan's policy, changed by what is given."""

    def decide(
        *entries, attempt=1, before=(), stopped=None, others=(), mode="frozen_features", unfreeze="all", **policy
    ):
        document = findings(*entries) | {"stopped": stopped}
        attempted = app.Attempt(**{**training, "attempt": attempt, "job": f"k-0123-train-{attempt}"})
        given = {
            "learning_rate_scale": "1",
            "dropout": "0.1",
            "mode": mode,
            "unfreeze": unfreeze,
            "epochs": "6",
            "head_epochs": "15",
        }
        return app.review(document, others, attempted, list(before), {**plan["input"]["debugger"], **policy}, given)

    return decide


def finding(rule, status="IssuesFound", message="What it means.", source="rules"):
    return {
        "rule": rule,
        "source": source,
        "status": status,
        "step": 40,
        "tensor": None,
        "values": {},
        "parameters": {},
        "message": message,
    }


def findings(*entries):
    return {
        "version": 1,
        "job": "train-1",
        "steps": 1,
        "tensors_saved": 1,
        "tensors": "smdebug",
        "stopped": None,
        "findings": list(entries),
        "curves": [],
        "gradient_norms": {"steps": [], "layers": []},
    }


@pytest.mark.usefixtures("published")
def test_the_review_is_left_in_s3_with_what_follows(app, event, context, put, get, plan, training, example):
    put(f"{training['checkpoints']}findings.json", example("findings"))
    review = app.handler(event | {"failed": True}, context)
    assert review["verdict"] == "retrain"
    assert "The loss became NaN at step 40" in review["reason"]
    assert "learning_rate_scale 0.1 (was 1), which multiplies the learning rate of every phase" in review["reason"]
    assert review["next"] == {
        "attempt": 2,
        "job": training["job"][:-1] + "2",
        "checkpoints": training["checkpoints"].replace(training["job"], training["job"][:-1] + "2"),
        "hyperparameters": {**training["hyperparameters"], "learning_rate_scale": "0.1"},
    }
    assert get(f"s3://{plan['bucket']}/{plan['prefix']}/debugger_review.json") == review


@pytest.mark.usefixtures("published")
def test_the_training_after_one_that_a_redrive_renamed_has_a_name_that_is_free(
    app, event, context, put, training, example
):
    training |= {name: training[name].replace("-train-1", "-train-2") for name in ("job", "checkpoints")}
    put(f"{training['checkpoints']}findings.json", example("findings"))
    following = app.handler(event | {"failed": True}, context)["next"]
    assert following["attempt"] == 2
    assert following["job"].endswith("-train-3")
    assert following["checkpoints"].endswith("-train-3/")


def test_each_issue_is_an_event_with_an_id_that_stays(app, event, context, put, training, example, published):
    put(f"{training['checkpoints']}findings.json", example("findings"))
    for _ in range(2):
        app.handler(event, context)
    first, second = (json.loads(entry["Detail"]) for entry in published)
    assert published[0]["DetailType"] == "DebuggerIssueFound"
    assert first == second
    assert (first["rule"], first["step"], first["verdict"]) == ("ExplodingTensor", 40, "retrain")


def test_only_what_eventbridge_refused_is_sent_again(
    app, event, context, put, get, plan, training, published, refusals
):
    put(f"{training['checkpoints']}findings.json", findings(*(finding(f"Rule{letter}") for letter in "ABCDEFGHIJKL")))
    refusals += [2, UNREACHABLE, 1]
    review = app.handler(event, context)
    told = [json.loads(entry["Detail"])["rule"] for entry in published]
    assert sorted(told) == [f"Rule{letter}" for letter in "ABCDEFGHIJKL"]
    assert "unannounced" not in review
    assert get(f"s3://{plan['bucket']}/{plan['prefix']}/debugger_review.json") == review


@pytest.mark.parametrize(
    ("refusal", "said"), [(THROTTLED, "Rate exceeded"), (UNREACHABLE, "timeout"), (1, "InternalFailure: Try again")]
)
@pytest.mark.parametrize(("failed", "verdict"), [(False, "accept"), (True, "stop")])
def test_an_event_that_cannot_be_sent_decides_nothing(
    app, event, context, put, get, plan, training, published, refusals, failed, verdict, refusal, said
):
    found = findings(finding("DeadRelu", message="They are dead."))
    found["stopped"] = {"rule": "DeadRelu", "step": 3, "message": "They are dead."} if failed else None
    put(f"{training['checkpoints']}findings.json", found)
    refusals += [refusal] * 3
    review = app.handler(event | {"failed": failed}, context)
    assert (review["verdict"], published) == (verdict, [])
    assert "They are dead." in review["reason"]
    (unannounced,) = get(f"s3://{plan['bucket']}/{plan['prefix']}/debugger_review.json")["unannounced"]
    assert (unannounced["rule"], unannounced["source"]) == ("DeadRelu", "rules")
    assert said in unannounced["reason"]


def test_what_the_profiler_found_is_told_and_only_warns(app, event, context, put, training, example, published):
    put(f"{training['checkpoints']}findings.json", findings(finding("Hooks", "NoIssuesFound")))
    profile = example("profile")
    profile["findings"] = [
        finding("StepOutlier", message="Some steps are slow."),
        finding("Dataloader", "NoIssuesFound"),
    ]
    put(f"{training['checkpoints']}profile.json", profile)
    review = app.handler(event, context)
    assert [one["rule"] for one in review["findings"]] == ["Hooks", "StepOutlier", "Dataloader"]
    assert review["verdict"] == "accept"
    assert "Some steps are slow." in review["reason"]
    assert [json.loads(entry["Detail"])["rule"] for entry in published] == ["StepOutlier"]


def test_a_profile_may_stop_a_run(decide):
    slow = finding("StepOutlier", message="Some steps are slow.")
    review = decide(finding("Hooks", "NoIssuesFound"), others=[slow], actions={"StepOutlier": "stop"})
    assert (review["verdict"], "Some steps are slow." in review["reason"]) == ("stop", True)


def test_findings_that_are_missing_are_an_error_unless_the_job_failed(app, event, context):
    with pytest.raises(app.documents.DocumentMissing, match=r"findings\.json"):
        app.handler(event, context)
    assert app.handler(event | {"failed": True}, context) == {"verdict": "failed"}


def test_a_job_that_failed_for_another_reason_fails_the_run_and_its_issues_are_told(
    app, event, context, put, training, published, refusals
):
    put(f"{training['checkpoints']}findings.json", findings(finding("Overfit")))
    assert app.handler(event | {"failed": True}, context) == {"verdict": "failed"}
    (detail,) = (json.loads(entry["Detail"]) for entry in published)
    assert (detail["rule"], detail["verdict"]) == ("Overfit", "failed")
    refusals += [THROTTLED] * 3
    assert app.handler(event | {"failed": True}, context) == {"verdict": "failed"}


@pytest.mark.parametrize(
    ("entries", "enabled", "verdict", "said"),
    [
        ([finding("Hooks", "NoIssuesFound")], True, "accept", "1 rules ran and found no issue"),
        ([finding("Hooks", "Error", "Nothing was written.")], True, "accept", "Nothing was written."),
        ([finding("ExplodingTensor", "Error", "No tensors.")], True, "accept", "warnings"),
        ([finding("DeadRelu", message="They are dead.")], True, "accept", "They are dead."),
        (
            [finding("ExplodingTensor", message="NaN.")],
            True,
            "retrain",
            "NaN. Training again with learning_rate_scale 0.1",
        ),
        ([finding("Overfit")], True, "retrain", "weight_decay 0.1 (was 0.01) and dropout 0.3 (was 0.1)"),
        ([finding("ShuffledLabels", message="Guessed.")], True, "stop", "Guessed."),
        ([finding("Overfit"), finding("ShuffledLabels")], True, "stop", "ShuffledLabels"),
        ([finding("Overfit"), finding("ExplodingTensor")], True, "retrain", "ExplodingTensor"),
        ([finding("Unheard"), finding("Hooks", "NoIssuesFound")], True, "accept", "Unheard"),
        ([], False, "accept", "The debugger was off."),
        ([], True, "accept", "left no finding, though it was on"),
    ],
)
def test_the_worst_issue_decides_by_the_table(decide, entries, enabled, verdict, said):
    review = decide(*entries, enabled=enabled)
    assert review["verdict"] == verdict
    assert said in review["reason"]
    assert review["findings"] == entries
    assert (review["next"] is not None) == (verdict == "retrain")
    assert [attempt["verdict"] for attempt in review["attempts"]] == [verdict]


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ("NoIssuesFound", "The debugger was off. 1 rules ran and found no issue."),
        ("IssuesFound", "The debugger was off. Accepted with warnings. StepOutlier (IssuesFound): What it means."),
    ],
)
def test_a_debugger_that_was_off_is_told_beside_what_the_profiler_found(decide, status, said):
    assert decide(others=[finding("StepOutlier", status)], enabled=False)["reason"] == said


def test_the_table_can_be_overridden(decide):
    review = decide(finding("ExplodingTensor"), actions={"ExplodingTensor": "raise_learning_rate"})
    assert review["next"]["hyperparameters"]["learning_rate_scale"] == "10"


def test_a_rate_that_was_lowered_is_lowered_further(decide, training):
    training["hyperparameters"]["learning_rate_scale"] = "0.1"
    review = decide(finding("ExplodingTensor"), attempt=2, max_retrains=2)
    assert review["next"]["hyperparameters"]["learning_rate_scale"] == "0.01"
    assert "learning_rate_scale 0.01 (was 0.1)" in review["reason"]


@pytest.mark.parametrize(
    ("mode", "unfreeze", "changed", "said"),
    [
        ("frozen_features", "all", {"unfreeze": "last_stage"}, "unfreeze last_stage (was all)."),
        (
            "frozen_features",
            "last_stage",
            {"unfreeze": "head", "epochs": "15"},
            "was last_stage) and epochs 15 (was 6).",
        ),
        ("frozen_features", "head", {"weight_decay": "0.1", "dropout": "0.3"}, "dropout 0.3 (was 0.1)."),
        ("full", "last_stage", {"weight_decay": "0.1", "dropout": "0.3"}, "dropout 0.3 (was 0.1)."),
    ],
)
def test_a_training_again_may_leave_more_layers_frozen(decide, mode, unfreeze, changed, said):
    review = decide(finding("Overfit"), actions={"Overfit": "freeze_more"}, mode=mode, unfreeze=unfreeze)
    assert changed.items() <= review["next"]["hyperparameters"].items()
    assert said in review["reason"]


@pytest.mark.parametrize(("rule", "verdict"), [("ExplodingTensor", "stop"), ("Overfit", "accept")])
def test_the_last_attempt_is_stopped_or_accepted_with_its_reason(decide, rule, verdict):
    before = [{"attempt": 1, "verdict": "retrain"}]
    review = decide(finding(rule, message="Still so."), attempt=2, before=before)
    assert review["verdict"] == verdict
    assert "after 2 trainings" in review["reason"]
    assert "Still so." in review["reason"]
    assert [attempt["attempt"] for attempt in review["attempts"]] == [1, 2]


def test_without_retrains_the_first_attempt_is_the_last(decide):
    assert decide(finding("ExplodingTensor"), max_retrains=0)["verdict"] == "stop"


@pytest.mark.parametrize("action", ["warn", "regularise", "freeze_more"])
def test_a_training_without_a_model_is_never_accepted(decide, action):
    stopped = {"rule": "ExplodingTensor", "step": 3, "message": "NaN."}
    for entries in ([finding("ExplodingTensor", message="NaN.")], []):
        review = decide(*entries, stopped=stopped, attempt=2, actions={"ExplodingTensor": action})
        assert review["verdict"] == "stop"
        assert "NaN." in review["reason"]


def test_names_of_many_attempts_do_not_run_together(decide):
    review = decide(finding("ExplodingTensor"), attempt=9, max_retrains=9)
    assert review["next"]["job"] == "k-0123-train-10"


STATUSES = {
    "DebugRuleEvaluationStatuses": [
        {"RuleConfigurationName": "Overfit", "RuleEvaluationStatus": "IssuesFound", "StatusDetails": "At step 9."},
        {"RuleConfigurationName": "LossNotDecreasing", "RuleEvaluationStatus": "InProgress"},
    ]
}


def test_managed_rules_are_waited_for_and_merged(app, event, context, put, plan, training, published, monkeypatch):
    plan["requests"]["train"]["DebugRuleConfigurations"] = [{}]
    put(event["plan_uri"], plan)
    put(f"{training['checkpoints']}findings.json", findings(finding("Hooks", "NoIssuesFound")))
    monkeypatch.setattr(app, "statuses_of", lambda *_: app_statuses(app, STATUSES))
    assert app.handler(event, context) == {"verdict": "wait"}
    review = app.handler(event | {"late": True}, context)
    assert [(one["source"], one["rule"], one["status"]) for one in review["findings"]] == [
        ("rules", "Hooks", "NoIssuesFound"),
        ("managed", "Overfit", "IssuesFound"),
        ("managed", "LossNotDecreasing", "Error"),
    ]
    assert (review["verdict"], "At step 9." in review["reason"]) == ("retrain", True)
    assert json.loads(published[0]["Detail"])["source"] == "managed"


def app_statuses(app, described):
    class SageMaker:
        def describe_training_job(self, TrainingJobName):  # noqa: N803
            return {"TrainingJobName": TrainingJobName, **described}

    return app.findings_of.__globals__["statuses_of"](SageMaker(), "job")
