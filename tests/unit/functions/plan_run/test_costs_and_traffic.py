"""What a plan says of money and of how traffic moves: pure, from a completed input."""

import pytest

INSTANCES = dict.fromkeys(("prepare", "tune", "train", "evaluate"), "ml.m5.xlarge") | {"endpoint": "ml.m5.large"}
SCALING = {"max_instance_count": 0, "invocations_per_instance": 600}


@pytest.fixture
def complete(load):
    run_input = load("plan_run", "run_input")
    return lambda **given: run_input.complete({"dataset": "s3://bucket/dogs", **given}, "kelpie", INSTANCES, SCALING)


@pytest.fixture
def cost(load):
    return load("plan_run", "cost")


@pytest.fixture
def deployment_config(load):
    return load("plan_run", "plan")._deployment_config


def test_the_bound_is_every_job_at_its_whole_time(cost, complete):
    given = {"max_job_seconds": 3600, "tuning": {"max_jobs": 5}, "serving": {"instance_count": 2}}
    bound = cost.estimate(complete(**given, debugger={"max_retrains": 0}))
    price = bound["jobs"][0]["usd_per_hour"]
    assert [(job["step"], job["jobs"]) for job in bound["jobs"]] == [
        ("prepare", 1),
        ("tune", 5),
        ("train", 1),
        ("optimize", 1),
        ("evaluate", 1),
    ]
    assert bound["most_usd"] == pytest.approx(8 * price + bound["jobs"][3]["most_usd"])
    assert bound["endpoint_usd_per_hour"] == pytest.approx(2 * 0.115)


def test_the_bound_has_every_instance_and_every_training_that_the_debugger_may_ask_for(cost, complete):
    def most_of_training(instance_count, max_retrains):
        bound = cost.estimate(
            complete(training={"instance_count": instance_count}, debugger={"max_retrains": max_retrains})
        )
        (train,) = [job for job in bound["jobs"] if job["step"] == "train"]
        return train["most_usd"]

    assert most_of_training(8, 5) == pytest.approx(8 * 6 * most_of_training(1, 0), abs=1)
    with pytest.raises(cost.BudgetExceeded, match=r"train: 6 x 43200 s of 8 x ml.m5.xlarge.* debugger.max_retrains"):
        cost.check_budget(cost.estimate(complete(training={"instance_count": 8}, debugger={"max_retrains": 5})), 100)


def test_float32_costs_no_optimizing(cost, complete):
    bound = cost.estimate(complete(serving={"variant": "float32"}))
    assert "optimize" not in [job["step"] for job in bound["jobs"]]


def test_a_run_that_could_cost_more_than_its_budget_is_refused_with_what_would_lower_that(cost, complete):
    bound = cost.estimate(complete(max_job_seconds=3600, tuning={"max_jobs": 5}))
    cost.check_budget(bound, bound["most_usd"])
    cost.check_budget(bound, None)
    with pytest.raises(cost.BudgetExceeded, match=r"tune: 5 x 3600 s of 1 x ml.m5.xlarge.* lower max_job_seconds"):
        cost.check_budget(bound, bound["most_usd"] - 0.01)


def test_a_budget_that_nobody_can_hold_is_refused(cost, complete):
    bound = cost.estimate(complete(instances={"train": "ml.p99.xlarge"}))
    assert bound["most_usd"] is None
    cost.check_budget(bound, None)
    with pytest.raises(cost.BudgetExceeded, match=r"does not have ml\.p99\.xlarge"):
        cost.check_budget(bound, 1e9)


def test_traffic_moves_at_once_and_unwatched_unless_asked_otherwise(complete, deployment_config):
    config = deployment_config(complete(), "kelpie")
    routing = config["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"]
    assert routing == {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0}
    assert "AutoRollbackConfiguration" not in config


@pytest.mark.parametrize(
    ("given", "alarms"),
    [
        ({}, ["kelpie-endpoint-5xx", "kelpie-endpoint-latency"]),
        ({"serving": {"rollback_alarms": ["kelpie-mine"]}}, ["kelpie-mine"]),
        ({"serving": {"rollback_alarms": []}}, []),
        ({"endpoint_name": "kelpie-cats"}, []),
    ],
)
def test_a_canary_bakes_under_the_alarms(complete, deployment_config, given, alarms):
    canary = {"traffic": "canary", "canary_percent": 20, "bake_seconds": 60, "instance_count": 2}
    completed = complete(**{**given, "serving": canary | given.get("serving", {})})
    config = deployment_config(completed, "kelpie")
    policy = config["BlueGreenUpdatePolicy"]
    assert policy["TrafficRoutingConfiguration"] == {
        "Type": "CANARY",
        "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 20},
        "WaitIntervalInSeconds": 60,
    }
    assert policy["MaximumExecutionTimeoutInSeconds"] > 2 * 60
    named = [alarm["AlarmName"] for alarm in config.get("AutoRollbackConfiguration", {}).get("Alarms", [])]
    assert named == alarms


@pytest.mark.parametrize(("percent", "enabled"), [(0, False), (25, True)])
def test_traffic_is_captured_if_asked_for(complete, load, percent, enabled):
    serving = complete(serving={"data_capture_percent": percent})["serving"]
    made = load("plan_run", "job_requests")._data_capture_config
    config = made(serving["data_capture_percent"], "s3://bucket/capture/", "")
    assert (config["EnableCapture"], config["InitialSamplingPercentage"]) == (enabled, percent)
    assert config["DestinationS3Uri"] == "s3://bucket/capture/"


def test_auto_scaling_is_off_unless_asked_for(complete, load):
    scaling = load("plan_run", "plan")._scaling(complete())
    assert scaling["retained"] == {}
    assert "target" not in scaling
    assert "policy" not in scaling


def test_auto_scaling_keeps_the_number_of_instances_that_the_load_asked_for(complete, load, cost):
    completed = complete(serving={"instance_count": 2, "max_instance_count": 6})
    scaling = load("plan_run", "plan")._scaling(completed)
    assert scaling["variant"]["ResourceId"] == "endpoint/kelpie/variant/AllTraffic"
    assert (scaling["target"]["MinCapacity"], scaling["target"]["MaxCapacity"]) == (2, 6)
    assert scaling["policy"]["TargetTrackingScalingPolicyConfiguration"]["TargetValue"] == 600
    assert scaling["retained"]["RetainAllVariantProperties"]
    assert cost.estimate(completed)["endpoint_usd_per_hour"] == pytest.approx(6 * 0.115)


def test_scaling_that_contradicts_itself_is_refused(complete):
    with pytest.raises(Exception, match=r"serving.max_instance_count: 2 must be 0, .* or at least .* 3"):
        complete(serving={"instance_count": 3, "max_instance_count": 2})
