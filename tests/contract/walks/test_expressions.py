"""Every expression of the state machine has a value, with 0, 1 and 2 of whatever there can be several of.

In JSONata a sequence of one becomes its item and an empty one nothing, which Step Functions takes for an error.
"""

import pytest

from tests.contract.walks.conftest import ADOPTED_BY, CREATED, JOBS_BY_STATE, LOCKED, TAKEN, answers, retrain


@pytest.mark.parametrize("count", [0, 1, 2])
def test_every_expression_has_a_value_with_0_1_and_2_items(definition, interpreter, make_plan, plan_module, count):
    plan = make_plan(serving={"variant": "fastest", "max_instance_count": 3})
    scenarios = Scenarios(interpreter.TaskError, plan, plan_module, count)
    evaluated, failed_in = set(), set()

    def walk(results):
        context = {"RedriveCount": 1, "RedriveTime": "2026-11-22T13:00:00Z"} if "redriven" in results else None
        run = interpreter.walk(definition, {"dataset": "s3://bucket/dogs"}, results, context)
        assert run.status in ("SUCCEEDED", "FAILED")
        evaluated.update(run.evaluated)
        return run

    for results in scenarios.all():
        # And again with each of its tasks failing in each way that is caught, unless that was seen.
        for name in walk(results).requests:
            for number, catcher in enumerate(definition["States"][name].get("Catch", [])):
                if (name, number) not in failed_in:
                    failed_in.add((name, number))
                    walk(results | {name: interpreter.TaskError(catcher["ErrorEquals"][0], "why")})

    assert set(expressions(definition)) - evaluated == set()
    assert {state for state, _number in failed_in} == {
        name for name, state in definition["States"].items() if state["Type"] == "Task"
    }


class Scenarios:
    """What tasks answer in runs that together come through every state. count: of whatever there can be several of."""

    def __init__(self, task_error, plan, plan_module, count):
        self._error, self._plan, self._count = task_error, plan, count
        self._renumbered = plan_module.renumbered
        self._endpoints = [{"EndpointName": f"other-{number}"} for number in range(count)]
        self._reason = {"FailureReason": "no luck"} if count else {}
        self._config = plan["names"]["endpoint_config"]

    def all(self):
        yield from self._good()
        yield from self._trainings()
        yield from self._gates()
        yield from self._adoptions()
        yield from self._deploys()

    def results(self, **changed):
        results = answers(self._plan)
        page = {"Endpoints": self._endpoints}
        channel = self._plan["requests"]["evaluate"]["InputDataConfig"][0]
        locked = {**LOCKED, "champion_channels": [channel] * self._count}
        reviewed = {"verdict": "accept", "reason": "fine", "attempts": [{"attempt": 1}] * self._count}
        return {
            **results,
            "FindScaling": {"ScalableTargets": [{}] * self._count},
            "FindEndpoint": [{**page, "NextToken": "more"}, page],
            "LockEndpoint": {"Payload": locked},
            "ReviewDebugger": {"Payload": reviewed},
            **changed,
        }

    def updating(self, **changed):
        found = [*self._endpoints, {"EndpointName": self._plan["names"]["endpoint"]}]
        scaled = {"ScalableTargets": [self._plan["scaling"]["variant"]]}
        return self.results(FindEndpoint={"Endpoints": found}, FindScaling=scaled, **changed)

    def planned(self, plan, **changed):
        return self.results(PlanRun={"Payload": {"plan_uri": "s3://b/plan.json", "plan": plan}}, **changed)

    def _good(self):
        serving = {**self._plan["input"]["serving"], "variant": "float32"}
        yield self.results()
        yield self.planned({**self._plan, "input": {**self._plan["input"], "serving": serving}})
        maintained = {"EndpointStatus": "SystemUpdating", "EndpointConfigName": "former"}
        yield self.updating(ReadEndpoint=[maintained, answers(self._plan)["ReadEndpoint"]])

    def _trainings(self):
        waits = {"Payload": {"verdict": "wait"}}
        stops = {"Payload": {"verdict": "stop", "reason": "why", "attempts": []}}
        failed = self._error("States.TaskFailed", "nan")
        done = answers(self._plan)["TrainModel"]
        yield self.results(**retrain("ReviewDebugger"))
        yield self.results(**retrain("ReviewFailedTraining"), TrainModel=[failed, done])
        yield self.results(TrainModel=failed, ReviewFailedTraining=stops)
        yield self.results(ReviewDebugger=[waits, stops])
        train = {**self._plan["requests"]["train"], "DebugHookConfig": {}, "DebugRuleConfigurations": [{}]}
        managed = {**self._plan, "requests": {**self._plan["requests"], "train": train}}
        yield self.planned(managed, TrainModel=self._error("SageMaker.AmazonSageMakerException", "closed"))
        for state in set(JOBS_BY_STATE) - {"TuneHyperparameters"}:
            ended = {"TrainingJobStatus": "Stopped", "SecondaryStatus": "MaxRuntimeExceeded"}
            yield self.results(**{state: {**answers(self._plan)[state], **ended}})

    def _gates(self):
        taken, abandoned = {"Payload": TAKEN}, {"Payload": {**LOCKED, "left_by": "arn:dead"}}
        patient = {**self._plan["input"]["serving"], "lock_wait_seconds": 600}
        yield self.results(LockEndpoint=[taken, abandoned])
        yield self.planned({**self._plan, "input": {**self._plan["input"], "serving": patient}}, LockEndpoint=taken)
        judged = answers(self._plan)["JudgeEvaluation"]["Payload"]
        for error in ("ModelRejected", "TrainingStopped"):
            told = {**answers(self._plan)["WriteFailureReport"]["Payload"], "error": error}
            rejected = {"Payload": {**judged, "verdict": "reject"}}
            yield self.results(JudgeEvaluation=rejected, WriteFailureReport={"Payload": told})

    def _adoptions(self):
        in_use = self._error("SageMaker.ResourceInUseException", "there already")
        for state, (step, _goes_on) in JOBS_BY_STATE.items():
            name = self._plan["names"][step]
            running = {"CreationTime": CREATED, "TrainingJobName": name, "HyperParameterTuningJobStatus": "InProgress"}
            running |= {"TrainingJobStatus": "InProgress", "SecondaryStatus": "Training"}
            ended = dict.fromkeys(
                ("TrainingJobStatus", "SecondaryStatus", "HyperParameterTuningJobStatus"), "Completed"
            )
            artifact = {"ModelArtifacts": {"S3ModelArtifacts": "s3://b/model.tar.gz"}} if self._count else {}
            for status in ("Completed", "Failed"):
                over = running | ended | dict.fromkeys(ended, status) | artifact | self._reason
                yield self.results(
                    **{state: in_use}, DescribeAdoptedJob=[running, over], DescribeAdoptedTuning=[running, over]
                )
            again = {"Payload": {"plan_uri": "s3://b/plan.json", "plan": self._renumbered(self._plan, state, "")}}
            failed = running | dict.fromkeys(ended, "Failed") | self._reason
            yield self.results(
                **{state: [in_use, answers(self._plan)[state]], "redriven": True},
                DescribeAdoptedJob=failed,
                DescribeAdoptedTuning=failed,
                PlanNextAttempt=again,
            )
        refused = self._error("SageMaker.SageMakerException", "there already")
        for state in ADOPTED_BY:
            yield self.results(**{state: refused})
        pending = {"PendingDeploymentSummary": {"EndpointConfigName": self._config}} if self._count else {}
        former = {"EndpointStatus": "Updating", "EndpointConfigName": "former"}
        yield self.updating(UpdateEndpoint=refused, ReadDeploy={**former, **pending})

    def _deploys(self):
        stuck = {"EndpointStatus": "Updating", "EndpointConfigName": "former", **self._reason}
        silent = {"EndpointStatus": "InService", "EndpointConfigName": "former", **self._reason}
        ours = {"EndpointStatus": "InService", "EndpointConfigName": self._config, **self._reason}
        broken = {"EndpointStatus": "Failed", "EndpointConfigName": self._config, **self._reason}
        wrong = self._error("EndpointAnswersDiffer", "wrong")
        yield self.updating(ReadEndpoint={"EndpointStatus": "Failed", "EndpointConfigName": "former", **self._reason})
        yield self.updating(DescribeEndpoint=stuck, CheckRollBack=stuck)
        yield self.updating(DescribeEndpoint=silent, CheckRollBack=silent)
        yield self.updating(DescribeEndpoint=broken, CheckRollBack=[ours, ours])
        yield self.updating(VerifyEndpoint=wrong, CheckRollBack=[ours, silent])
        yield self.results(VerifyEndpoint=wrong, CheckRollBack=ours)
        yield self.results(TuneHyperparameters=self._error("States.TaskFailed", "trials"))


def expressions(definition):
    """Yield (state, expression) of each expression in the state machine."""
    for name, state in definition["States"].items():
        waiting = [state]
        while waiting:
            value = waiting.pop()
            if isinstance(value, str) and value.startswith("{%"):
                yield name, value
            elif isinstance(value, dict | list):
                waiting += value.values() if isinstance(value, dict) else value
