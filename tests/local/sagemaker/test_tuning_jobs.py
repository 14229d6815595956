"""Tuning jobs: their trials, what is told of them, and what is refused."""

import json
import re
import time
from typing import Any

import pytest

from localcloud.sagemaker.errors import ServiceError
from tests.local.sagemaker.tuning import BOWL, ENDED, NAME, describe, ended, request, run, trials
from tests.waiting import wait_for


@pytest.mark.parametrize("objective_type", ["Maximize", "Minimize"])
def test_the_best_trial_is_found(sagemaker, outside, objective_type):
    objective = {"Type": objective_type, "MetricName": "valid:objective"}
    job = run(sagemaker, request(HyperParameterTuningJobObjective=objective))

    assert job["HyperParameterTuningJobStatus"] == "Completed"
    assert job["TrainingJobStatusCounters"]["Completed"] == 4
    assert job["ObjectiveStatusCounters"] == {"Succeeded": 4, "Pending": 0, "Failed": 0}
    values = {
        trial["TrainingJobName"]: 1 - abs(float(trial["TunedHyperParameters"]["x"]) - 2) / 10
        for trial in trials(sagemaker)
    }
    best = job["BestTrainingJob"]
    assert best["TrainingJobName"] == (max if objective_type == "Maximize" else min)(values, key=values.__getitem__)
    final = best["FinalHyperParameterTuningJobObjectiveMetric"]
    assert final["Value"] == pytest.approx(values[best["TrainingJobName"]])
    assert final["MetricName"] == "valid:objective"

    def told() -> list[str]:
        events = [detail for kind, detail, _ in outside.events if "Tuning" in kind]
        json.dumps(events)
        return [event["HyperParameterTuningJobStatus"] for event in events]

    wait_for(lambda: told() == ["InProgress", "Completed"], told)  # an event follows its status


def test_a_trial_is_a_training_job_of_its_own(sagemaker, outside):
    script = f'{BOWL}; open(os.environ["SM_MODEL_DIR"] + "/weights", "w").write("w")'
    job = run(sagemaker, request(script, trials=1, parallel=1))
    (trial,) = trials(sagemaker)
    name = trial["TrainingJobName"]
    assert re.fullmatch(r"kelp-tune-001-[0-9a-f]{8}", name)
    training_job = sagemaker.call("DescribeTrainingJob", {"TrainingJobName": name})
    hyperparameters = training_job["HyperParameters"]
    assert training_job["TuningJobArn"] == job["HyperParameterTuningJobArn"]
    assert hyperparameters["x"] == trial["TunedHyperParameters"]["x"]
    assert hyperparameters["quoted"] in {'"64"', '"128"'}
    assert hyperparameters["static"] == "1"
    assert hyperparameters["_tuning_objective_metric"] == "valid:objective"
    assert any(line.startswith("objective=") for line in outside.log(name))
    assert outside.unpacked(f"jobs/{name}/output/model.tar.gz") == {"weights": b"w"}
    assert sagemaker.call("ListTags", {"ResourceArn": trial["TrainingJobArn"]})["Tags"] == [
        {"Key": "team", "Value": "sea"}
    ]


def test_trials_run_in_parallel_up_to_the_limit(sagemaker):
    script = 'import time; time.sleep(0.5); print("objective=1")'
    sagemaker.call("CreateHyperParameterTuningJob", request(script, trials=6, parallel=3))
    most = 0
    while (job := describe(sagemaker))["HyperParameterTuningJobStatus"] not in ENDED:
        most = max(most, job["TrainingJobStatusCounters"]["InProgress"])
        time.sleep(0.01)
    assert most == 3
    assert job["TrainingJobStatusCounters"]["Completed"] == 6


def test_a_failing_trial_does_not_fail_the_job(sagemaker):
    script = 'import os; x = float(os.environ["SM_HP_X"]); print(f"objective={x}"); assert x < 5'
    job = run(sagemaker, request(script, trials=6, parallel=2))
    failed = [trial for trial in trials(sagemaker) if trial["TrainingJobStatus"] == "Failed"]
    assert failed
    assert {trial["ObjectiveStatus"] for trial in failed} == {"Failed"}
    assert "AssertionError" in failed[0]["FailureReason"]
    assert job["HyperParameterTuningJobStatus"] == "Completed"
    assert job["TrainingJobStatusCounters"]["NonRetryableError"] == len(failed)
    assert float(job["BestTrainingJob"]["TunedHyperParameters"]["x"]) < 5


@pytest.mark.parametrize(
    ("script", "number", "started", "reason"),
    [
        ("raise SystemExit(1)", 3, 3, "All training jobs failed. Please take a look at the training jobs failures"),
        ("raise SystemExit(1)", 12, 6, "No training job succeeded after 5 attempts. For additional details, please"),
        ("print('no number')", 2, 2, "No training job reported the objective metric 'valid:objective'"),
    ],
)
def test_a_job_without_a_successful_trial_fails(sagemaker, script, number, started, reason):
    job = run(sagemaker, request(script, trials=number, parallel=2))
    assert job["HyperParameterTuningJobStatus"] == "Failed"
    assert job["FailureReason"].startswith(reason)
    assert "BestTrainingJob" not in job
    assert 5 <= len(trials(sagemaker)) <= started if number == 12 else len(trials(sagemaker)) == started


def test_stopping_stops_the_trials(sagemaker):
    sagemaker.call("CreateHyperParameterTuningJob", request("import time; time.sleep(600)", trials=4))
    wait_for(lambda: len(trials(sagemaker)) == 2)
    sagemaker.call("StopHyperParameterTuningJob", {"HyperParameterTuningJobName": NAME})
    assert describe(sagemaker)["HyperParameterTuningJobStatus"] in {"Stopping", "Stopped"}
    job = ended(sagemaker)
    assert job["HyperParameterTuningJobStatus"] == "Stopped"
    assert job["TrainingJobStatusCounters"] == {
        "Completed": 0,
        "InProgress": 0,
        "RetryableError": 0,
        "NonRetryableError": 0,
        "Stopped": 2,
    }
    with pytest.raises(ServiceError, match="rejected because the tuning job is in status Stopped"):
        sagemaker.call("StopHyperParameterTuningJob", {"HyperParameterTuningJobName": NAME})


def test_trials_are_listed_sorted_filtered_and_paged(sagemaker):
    script = 'import os; x = float(os.environ["SM_HP_X"]); x < 5 and print(f"objective={x}")'
    run(sagemaker, request(script, trials=6, parallel=3))
    by_value = trials(sagemaker, SortBy="FinalObjectiveMetricValue", SortOrder="Descending")
    values = [trial["FinalHyperParameterTuningJobObjectiveMetric"]["Value"] for trial in by_value]
    assert values == sorted(values, reverse=True)
    assert 0 < len(values) < 6
    assert len(trials(sagemaker, StatusEquals="Completed")) == 6
    assert trials(sagemaker, StatusEquals="Failed") == []
    name = {"HyperParameterTuningJobName": NAME}
    first = sagemaker.call("ListTrainingJobsForHyperParameterTuningJob", {**name, "MaxResults": 4})
    rest = trials(sagemaker, NextToken=first["NextToken"])
    names = [trial["TrainingJobName"] for trial in first["TrainingJobSummaries"] + rest]
    assert [n[:13] for n in names] == [f"kelp-tune-00{i}" for i in range(1, 7)]
    (listed,) = sagemaker.call("ListHyperParameterTuningJobs", {"NameContains": "kelp"})[
        "HyperParameterTuningJobSummaries"
    ]
    assert listed["Strategy"] == "Random"
    assert listed["TrainingJobStatusCounters"]["Completed"] == 6


def test_a_tuning_job_that_a_stop_of_the_service_interrupts_has_failed(start_service):
    service = start_service()
    service.call("CreateHyperParameterTuningJob", request("import time; time.sleep(60)"))
    service.close()
    job = describe(start_service())
    assert job["HyperParameterTuningJobStatus"] == "Failed"
    assert "the local cloud was stopped" in job["FailureReason"]


def test_the_resources_may_stand_where_the_sdk_puts_them(sagemaker):
    wanted = request(trials=1, parallel=1)
    resources = wanted[DEFINITION].pop("ResourceConfig")
    wanted[DEFINITION]["HyperParameterTuningResourceConfig"] = resources
    assert run(sagemaker, wanted)["TrainingJobStatusCounters"]["Completed"] == 1
    (trial,) = trials(sagemaker)
    described = sagemaker.call("DescribeTrainingJob", {"TrainingJobName": trial["TrainingJobName"]})
    assert described["ResourceConfig"] == resources
    wanted[DEFINITION]["ResourceConfig"] = resources
    with pytest.raises(ServiceError, match="not both"):
        sagemaker.call("CreateHyperParameterTuningJob", {**wanted, "HyperParameterTuningJobName": "both"})


def test_each_trial_has_a_checkpoint_folder_of_its_own(sagemaker, outside):
    script = 'import os; open("checkpoints/last", "w").write(os.environ["SM_HP_X"]); print("objective=1")'
    parameters = request(script, trials=2)
    parameters["TrainingJobDefinition"]["CheckpointConfig"] = {"S3Uri": "s3://the-bucket/checkpoints/"}
    run(sagemaker, parameters)
    written = {f"checkpoints/{trial['TrainingJobName']}/last" for trial in trials(sagemaker)}
    assert set(outside.keys("checkpoints/")) == written
    for trial in trials(sagemaker):
        content = outside.read(f"checkpoints/{trial['TrainingJobName']}/last").decode()
        assert content == trial["TunedHyperParameters"]["x"]


def test_names_are_used_once(sagemaker):
    run(sagemaker, request(trials=1))
    with pytest.raises(ServiceError) as caught:
        sagemaker.call("CreateHyperParameterTuningJob", request())
    assert caught.value.code == "ResourceInUse"


def test_an_unknown_tuning_job_is_not_found(sagemaker):
    with pytest.raises(ServiceError, match="can't find a tuning job with the name kelp-tune") as caught:
        describe(sagemaker)
    assert caught.value.code == "ResourceNotFound"


def changed(path: str, value: Any) -> dict[str, Any]:
    parameters = request()
    *parents, last = path.split(".")
    member = parameters
    for parent in parents:
        member = member[parent]
    member[last] = value
    return parameters


CONFIG = "HyperParameterTuningJobConfig"
DEFINITION = "TrainingJobDefinition"


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (changed(f"{CONFIG}.Strategy", "Hyperband"), "Strategy Hyperband needs HyperbandStrategyConfig.MaxResource"),
        (
            changed(f"{CONFIG}.StrategyConfig", {"HyperbandStrategyConfig": {"MaxResource": 4}}),
            "StrategyConfig can only be given with strategy Hyperband",
        ),
        (
            changed(
                f"{CONFIG}.TuningJobCompletionCriteria", {"ConvergenceDetected": {"CompleteOnConvergence": "Enabled"}}
            ),
            'CompleteOnConvergence="Enabled" is not supported by the local SageMaker: AWS does not publish',
        ),
        (changed("Autotune", {"Mode": "Enabled"}), "Autotune"),
        (changed(f"{CONFIG}.ParameterRanges.ContinuousParameterRanges", []), "combinations for the provided ranges"),
        (changed(f"{CONFIG}.HyperParameterTuningJobObjective.MetricName", "other"), "not among the MetricDefinitions"),
        (changed(f"{DEFINITION}.StaticHyperParameters.x", "1"), r"these are both: \['x'\]"),
        (changed(f"{DEFINITION}.CheckpointConfig", {"S3Uri": "s3://b/c", "LocalPath": "/tmp"}), "below /opt/ml"),
    ],
)
def test_what_is_not_honoured_is_refused_by_name_and_starts_nothing(sagemaker, parameters, message):
    with pytest.raises(ServiceError, match=message):
        sagemaker.call("CreateHyperParameterTuningJob", parameters)
    assert sagemaker.call("ListHyperParameterTuningJobs", {})["HyperParameterTuningJobSummaries"] == []
    assert sagemaker.call("ListTrainingJobs", {})["TrainingJobSummaries"] == []


def test_early_stopping_off_and_a_grid_are_accepted(sagemaker):
    parameters = request(TrainingJobEarlyStoppingType="Off", Strategy="Grid")
    config = parameters["HyperParameterTuningJobConfig"]
    config["ParameterRanges"] = {"CategoricalParameterRanges": [{"Name": "x", "Values": ["1", "2", "3"]}]}
    del config["ResourceLimits"]["MaxNumberOfTrainingJobs"]
    job = run(sagemaker, parameters)
    assert job["BestTrainingJob"]["TunedHyperParameters"] == {"x": "2"}
    assert job["TrainingJobStatusCounters"]["Completed"] == 3
