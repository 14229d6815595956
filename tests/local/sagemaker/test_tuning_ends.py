"""What ends trials, and whole tuning jobs, before they have done all that they might."""

import json
import time
from typing import Any

from tests.local.sagemaker.tuning import ended, request, run, trials
from tests.waiting import wait_for

# Three epochs of the objective; a value below 0.5 would go on for ten minutes, if nobody stopped it.
EPOCHS = json.dumps(
    "import os, time\n"
    "value = float(os.environ['SM_HP_X'].strip('\"'))\n"
    "for epoch in range(3 if value >= 0.5 else 6000):\n"
    "    print(f'objective={value + min(epoch, 2) / 100}', flush=True)\n"
    "    time.sleep(0.1)\n"
)


def in_order(*values: str, **config: Any) -> dict[str, Any]:
    """One trial after the other, with these values of x."""
    parameters = request(EPOCHS, parallel=1, Strategy="Grid", **config)
    ranges = {"CategoricalParameterRanges": [{"Name": "x", "Values": list(values)}]}
    parameters["HyperParameterTuningJobConfig"]["ParameterRanges"] = ranges
    parameters["HyperParameterTuningJobConfig"]["ResourceLimits"] = {"MaxParallelTrainingJobs": 1}
    return parameters


def test_early_stopping_ends_trials_below_the_median(sagemaker):
    job = run(sagemaker, in_order("0.9", "0.1", "0.95", TrainingJobEarlyStoppingType="Auto"))
    good, bad, better = trials(sagemaker)
    assert [trial["TrainingJobStatus"] for trial in (good, bad, better)] == ["Completed", "Stopped", "Completed"]
    assert bad["ObjectiveStatus"] == "Succeeded"
    assert bad["FinalHyperParameterTuningJobObjectiveMetric"]["Value"] < 0.2
    assert job["HyperParameterTuningJobStatus"] == "Completed"
    assert job["TrainingJobStatusCounters"]["Stopped"] == 1
    assert job["ObjectiveStatusCounters"]["Succeeded"] == 3
    assert job["BestTrainingJob"]["TunedHyperParameters"] == {"x": "0.95"}


def test_a_target_that_is_reached_completes_the_job(sagemaker):
    criteria = {"TargetObjectiveMetricValue": 0.7}
    job = run(sagemaker, in_order("0.5", "0.75", "0.9", "0.95", TuningJobCompletionCriteria=criteria))
    assert job["HyperParameterTuningJobStatus"] == "Completed"
    assert job["TrainingJobStatusCounters"]["Completed"] == 2
    assert job["BestTrainingJob"]["TunedHyperParameters"] == {"x": "0.75"}


def test_trials_that_do_not_improve_by_a_hundredth_complete_the_job(sagemaker):
    criteria = {"BestObjectiveNotImproving": {"MaxNumberOfTrainingJobsNotImproving": 3}}
    values = ("0.5", "0.8", "0.7", "0.802", "0.6", "0.9", "0.95")
    job = run(sagemaker, in_order(*values, TuningJobCompletionCriteria=criteria))
    assert job["TrainingJobStatusCounters"]["Completed"] == 5
    assert job["TuningJobCompletionDetails"] == {"NumberOfTrainingJobsObjectiveNotImproving": 3}
    assert job["BestTrainingJob"]["TunedHyperParameters"] == {"x": "0.802"}


def test_the_longest_runtime_ends_the_job_and_its_trials(sagemaker, monkeypatch):
    parameters = in_order("0.9", "0.1")
    parameters["HyperParameterTuningJobConfig"]["ResourceLimits"]["MaxRuntimeInSeconds"] = 3600
    sagemaker.call("CreateHyperParameterTuningJob", parameters)
    wait_for(lambda: len(trials(sagemaker)) == 2)
    monkeypatch.setattr("localcloud.sagemaker.tuning_run.monotonic", lambda: time.monotonic() + 3600)
    job = ended(sagemaker)
    assert job["HyperParameterTuningJobStatus"] == "Completed"
    assert [trial["TrainingJobStatus"] for trial in trials(sagemaker)] == ["Completed", "Stopped"]
    assert job["BestTrainingJob"]["TunedHyperParameters"] == {"x": "0.9"}


def test_hyperband_stops_trials_on_their_way(sagemaker):
    parameters = request(EPOCHS, trials=4, parallel=1, Strategy="Hyperband", RandomSeed=3)
    config = parameters["HyperParameterTuningJobConfig"]
    config["StrategyConfig"] = {"HyperbandStrategyConfig": {"MinResource": 1, "MaxResource": 3}}
    config["ParameterRanges"] = {"ContinuousParameterRanges": [{"Name": "x", "MinValue": "0", "MaxValue": "1"}]}
    job = run(sagemaker, parameters)
    assert job["HyperParameterTuningJobStatus"] == "Completed"
    values = {trial["TrainingJobName"]: float(trial["TunedHyperParameters"]["x"]) for trial in trials(sagemaker)}
    stopped = trials(sagemaker, StatusEquals="Stopped")
    assert stopped
    assert job["BestTrainingJob"]["TrainingJobName"] == max(values, key=values.__getitem__)
