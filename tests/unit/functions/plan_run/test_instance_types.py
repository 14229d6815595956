import pytest

from tests.unit.functions.plan_run.conftest import DATASET

TRAINED = {"dataset": DATASET, "tuning": {"ranges": {"batch_size": [2]}}}


@pytest.mark.usefixtures("dogs")
@pytest.mark.parametrize(
    ("instances", "said"),
    [
        ({"train": "ml.m5.xlarg"}, ["instances.train 'ml.m5.xlarg'", "has for jobs: of ml.m5 it has", "ml.m5.xlarge"]),
        ({"endpoint": "ml.m5.8xlarge"}, ["instances.endpoint", "for endpoints: of ml.m5", "ml.m5.4xlarge"]),
        ({"tune": "ml.t2.large"}, ["instances.tune", "it has nothing of ml.t2, choose another"]),
        ({"endpoint": "ml.c5.large"}, ["instances.optimize 'ml.c5.large'", "ml.c5.xlarge", "serving.variant float32"]),
        ({"endpoint": "ml.m5d.large"}, ["instances.optimize", "nothing of ml.m5d", "serving.variant float32"]),
    ],
)
def test_an_instance_type_that_sagemaker_does_not_have_is_refused_before_anything_is_paid_for(refused, instances, said):
    name, message = refused({**TRAINED, "instances": instances})
    assert name == "InvalidInput"
    for part in said:
        assert part in message


@pytest.mark.usefixtures("dogs")
@pytest.mark.parametrize(
    "asked",
    [
        {"instances": {"endpoint": "ml.c5.large", "optimize": "ml.c5.xlarge"}},
        {"instances": {"endpoint": "ml.c5.large"}, "serving": {"variant": "float32"}},
        {"instances": {"train": "ml.m99.large"}},
    ],
    ids=["optimized on another", "not optimized", "a family newer than the SDK"],
)
def test_what_may_be_there_is_asked_for(plan_run, get, asked):
    plan = get(plan_run({**TRAINED, **asked})["plan_uri"])
    assert asked["instances"].items() <= plan["instances"].items()
