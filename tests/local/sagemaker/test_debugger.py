"""The managed Debugger: what a container is told, where its tensors go, and what is refused."""

import pytest

from localcloud.sagemaker.errors import ServiceError
from tests.waiting import PATIENCE_SECONDS, wait_for

WRITE_TENSORS = """
import json, pathlib, time
config = pathlib.Path('input/config')
hook = json.loads((config / 'debughookconfig.json').read_text())
assert hook['HookParameters'] == {'save_interval': '10'}, hook
assert hook['CollectionConfigurations'] == [{'CollectionName': 'losses'}], hook
assert not (config / 'profilerconfig.json').exists()
tensors = pathlib.Path(hook['LocalPath'])
(tensors / 'events').mkdir(parents=True)
(tensors / 'events' / '0').write_text('loss')
while not pathlib.Path('go').exists():
    time.sleep(0.05)
(tensors / 'end_of_job.ts').write_text('')
"""
HOOK = {
    "S3OutputPath": "s3://the-bucket/debugger",
    "HookParameters": {"save_interval": "10"},
    "CollectionConfigurations": [{"CollectionName": "losses"}],
}


def test_tensors_are_uploaded_while_the_job_runs(sagemaker, job, outside):
    sagemaker.training_jobs.checkpoint_seconds = 0.1
    request = job("watched", WRITE_TENSORS, DebugHookConfig=HOOK, ProfilerConfig={"DisableProfiler": True})
    sagemaker.call("CreateTrainingJob", request)
    wait_for(
        lambda: outside.keys("debugger/") == ["debugger/watched/debug-output/events/0"],
        lambda: sagemaker.call("DescribeTrainingJob", {"TrainingJobName": "watched"}),
    )
    (sagemaker.training_jobs.folder("watched") / "algo-1" / "opt" / "ml" / "go").touch()
    described = sagemaker.training_jobs.wait("watched", PATIENCE_SECONDS)
    assert described["TrainingJobStatus"] == "Completed", described["FailureReason"]
    assert described["DebugHookConfig"] == HOOK
    assert "debugger/watched/debug-output/end_of_job.ts" in outside.keys("debugger/")


PROFILE = """
import json, pathlib
for file in ('profilerconfig', 'tensorboardoutputconfig'):
    folder = pathlib.Path(json.loads(pathlib.Path(f'input/config/{file}.json').read_text())['LocalPath'])
    folder.mkdir(parents=True)
    (folder / file).write_text('written')
"""


def test_profiler_and_tensorboard_have_their_own_places(sagemaker, job, outside):
    board = {"S3OutputPath": "s3://the-bucket/board", "LocalPath": "/opt/ml/output/mine"}
    profiler = {"S3OutputPath": "s3://the-bucket/profiler", "ProfilingParameters": {"a": "{}"}}
    request = job("profiled", PROFILE, TensorBoardOutputConfig=board, ProfilerConfig=profiler)
    sagemaker.call("CreateTrainingJob", request)
    described = sagemaker.training_jobs.wait("profiled", PATIENCE_SECONDS)
    assert described["TrainingJobStatus"] == "Completed", described["FailureReason"]
    assert outside.keys("board/") == ["board/profiled/tensorboard-output/tensorboardoutputconfig"]
    assert outside.keys("profiler/") == ["profiler/profiled/profiler-output/profilerconfig"]


RULE = {"RuleConfigurationName": "Overfit", "RuleEvaluatorImage": "rules:latest"}


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"DebugRuleConfigurations": [RULE]}, r"DebugRuleConfigurations\[\]\.RuleConfigurationName=.*no rules are"),
        ({"ProfilerRuleConfigurations": [RULE]}, r"ProfilerRuleConfigurations\[\]"),
        ({"ProfilerConfig": {"DisableProfiler": False}}, r"ProfilerConfig\.S3OutputPath is required"),
        ({"DebugHookConfig": {"S3OutputPath": "s3://b", "LocalPath": "/tmp"}}, r"DebugHookConfig\.LocalPath"),
    ],
)
def test_what_is_not_done_here_is_refused(sagemaker, job, members, said):
    with pytest.raises(ServiceError, match=said):
        sagemaker.call("CreateTrainingJob", job("refused", "print(1)", **members))


def test_an_account_that_is_closed_to_the_debugger(sagemaker, job):
    sagemaker.inject({"Fault": "ClosedToDebugger"})
    for _ in range(2):
        with pytest.raises(ServiceError, match=r"no longer open to new customers\. Remove DebugHookConfig from"):
            sagemaker.call("CreateTrainingJob", job("closed", "print(1)", DebugHookConfig=HOOK))
    sagemaker.call("CreateTrainingJob", job("open", "print(1)", ProfilerConfig={"DisableProfiler": True}))
    assert sagemaker.training_jobs.wait("open", PATIENCE_SECONDS)["TrainingJobStatus"] == "Completed"
