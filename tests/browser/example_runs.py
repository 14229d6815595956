"""The kinds of runs that a report is read of, none of which ever ran, and the reports that are written of them."""

import json
import sys
from typing import Any

from tests.browser.example_run import BUCKET, DIGITS, HOSTILE, ROOT, ExampleRun
from tests.browser.example_services import ExampleServices
from tests.browser.example_training import add_findings, add_history, add_profile, add_review

PREPARED = [("PlanRun", 2.4), ("PrepareDataset", 41.2), ("IsDatasetPrepared", 0.0)]
TRAINED = [
    *PREPARED,
    ("TuneHyperparameters", 412.5),
    ("ChooseHyperparameters", 1.1),
    ("TrainModel", 188.0),
    ("IsModelTrained", 0.0),
    ("ReviewDebugger", 0.9),
    ("IsTrainingSound", 0.0),
]
EVALUATED = [
    *TRAINED,
    ("OptimizeModel", 64.0),
    ("IsModelOptimized", 0.0),
    ("LockEndpoint", 0.6),
    ("IsEndpointLocked", 0.0),
    ("EvaluateModel", 55.3),
    ("IsModelEvaluated", 0.0),
    ("JudgeEvaluation", 0.8),
    ("RegisterModel", 0.2),
    ("IsModelAccepted", 0.0),
]
DEPLOYED = [
    *EVALUATED,
    ("CreateModel", 0.4),
    ("CreateEndpointConfig", 0.3),
    ("FindEndpoint", 0.2),
    ("DeployEndpoint", 0.0),
    ("CreateEndpoint", 0.3),
    *[("WaitForEndpoint", 15.0), ("DescribeEndpoint", 0.2), ("HasEndpointSettled", 0.0)] * 6,
    ("VerifyEndpoint", 3.9),
    ("UnlockEndpoint", 0.5),
    ("WriteReport", 0.0),
]
FAILED = [("WriteFailureReport", 0.0)]


def success(name: str = "success", classes: list[str] | None = None, **sizes: Any) -> ExampleRun:
    run = ExampleRun(
        name, classes or DIGITS, path=DEPLOYED, retried={"CreateModel": "SageMaker.SageMakerException"}, **sizes
    )
    run.add_plan()
    run.add_manifest()
    run.add_leaderboard()
    found = {"Overfit": (420, "The validation loss rises while the training loss falls: train fewer epochs.")}
    add_history(run, 20)
    add_findings(run, 600, found)
    add_profile(run, 600)
    add_review(run, "accept", found)
    run.add_variants()
    run.add_evaluation()
    run.add_verdict(accepted=True)
    run.add_verification()
    return run


def rejection() -> ExampleRun:
    failure = {"State": "IsModelAccepted", "Error": "ModelRejected"}
    run = ExampleRun("rejection", DIGITS, accuracy=0.81, path=EVALUATED + FAILED, failure=failure)
    run.add_plan()
    run.add_manifest()
    run.add_leaderboard()
    add_history(run, 12)
    add_review(run, "accept", {})
    run.add_evaluation()
    run.add_verdict(accepted=False)
    failure["Cause"] = next(one["reason"] for uri, one in run.documents.items() if uri.endswith("verdict.json"))
    return run


def debugger_stop() -> ExampleRun:
    said = "The loss became NaN at step 40: lower the learning rate."
    failure = {
        "State": "IsTrainingSound",
        "Error": "TrainingStopped",
        "Cause": f"ExplodingTensor (IssuesFound): {said}",
    }
    run = ExampleRun("debugger-stop", DIGITS, path=TRAINED + FAILED, failure=failure)
    run.add_plan()
    run.add_manifest()
    run.add_leaderboard()
    add_findings(run, 41, {"ExplodingTensor": (40, said)})
    add_profile(run, 41)
    add_review(run, "stop", {"ExplodingTensor": (40, said)})
    return run


def failed_job() -> ExampleRun:
    run = ExampleRun(
        "failed-job",
        DIGITS,
        path=[*PREPARED, ("TuneHyperparameters", 400.0), ("ChooseHyperparameters", 1.0), ("TrainModel", 9.0), *FAILED],
    )
    run.failures["TrainModel"] = "States.TaskFailed"
    description = {
        "TrainingJobName": run.plan["names"]["train"],
        "TrainingJobStatus": "Failed",
        "FailureReason": "AlgorithmError: RuntimeError: not enough memory: you tried to allocate 3.2 GB, exit code: 1",
    }
    run.failure = {"State": "TrainModel", "Error": "States.TaskFailed", "Cause": json.dumps(description)}
    run.log = [
        *(
            f"epoch {epoch}/20 train_loss={2.3 / epoch:.4f} valid_accuracy={1 - 0.9 / epoch:.4f}"
            for epoch in range(1, 9)
        ),
        "Traceback (most recent call last):",
        '  File "/opt/ml/code/train.py", line 401, in <module>',
        "    run(lambda: main(read_options(None)))",
        '  File "/opt/ml/code/engine.py", line 130, in fit',
        "    loss.backward()",
        "RuntimeError: not enough memory: you tried to allocate 3.2 GB",
    ]
    run.add_plan()
    run.add_manifest()
    run.add_leaderboard()
    return run


def large() -> ExampleRun:
    words = ("river", "stone", "maple", "amber", "cedar", "coral", "ember", "fjord", "grove", "heath", "ivory", "lilac")
    classes = [f"{number:03}.{words[number % 12].title()}_{words[number * 5 % 11]}" for number in range(1, 134)]
    return success("large", classes, trials=100, images_per_class=50, accuracy=0.88)


def hostile() -> ExampleRun:
    """A run whose class names, paths and reasons would do harm if any of them reached the page unescaped."""
    run = success("hostile", [HOSTILE, "{{ 7 * 7 }}", "a].b[0]", "'+alert(3)+'"])
    run.failure = {"State": "VerifyEndpoint", "Error": "EndpointAnswersDiffer", "Cause": HOSTILE}
    run.log = [HOSTILE]
    return run


KINDS = {kind.__name__: kind for kind in (success, rejection, debugger_stop, failed_job, large, hostile)}


def write_report(run: ExampleRun, s3: Any) -> dict[str, str]:
    """Let the function write the report of a run that was put into BUCKET, and return its pages by name."""
    folder = str(ROOT / "functions" / "write_report")
    sys.path.insert(0, folder)
    try:
        import app
        from failure import explain
    finally:
        sys.path.remove(folder)
    services, failure = ExampleServices(run), explain(run.failure) if run.failure else None
    written = app.report(s3, services, services, services, {"execution_arn": run.execution_arn}, failure)
    folder = written["report"].removeprefix(f"s3://{BUCKET}/").rpartition("/")[0]
    listed = s3.list_objects_v2(Bucket=BUCKET, Prefix=folder)["Contents"]
    names = [entry["Key"] for entry in listed if entry["Key"].endswith(".html")]
    return {key.rpartition("/")[2]: s3.get_object(Bucket=BUCKET, Key=key)["Body"].read().decode() for key in names}
