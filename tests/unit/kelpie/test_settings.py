"""What --set takes, and what it says of the rest."""

import pytest

from kelpie import documents
from kelpie.errors import InvalidInput
from kelpie.settings import CONTRACT, check_rule_parameter, execution_input, expectation, take_weights_file

DATASET = "s3://bucket/data/"


def test_only_what_is_set_is_in_the_input():
    assert execution_input(["tuning.max_jobs=6", "model.weights=none"], DATASET) == {
        "dataset": DATASET,
        "tuning": {"max_jobs": 6},
        "model": {"weights": "none"},
    }


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("tuning.ranges.batch_size=16,32", [16, 32]),
        ("tuning.ranges.batch_size=[16]", [16]),
        ("debugger.enabled=false", False),
        ("gate.min_accuracy=0.5", 0.5),
        ("tuning.ranges.learning_rate.min=1e-4", 1e-4),
        ("endpoint_name=7", "7"),
    ],
)
def test_values_are_read_by_the_schemas_types(assignment, value):
    document = execution_input([assignment], DATASET)
    for key in assignment.partition("=")[0].split("."):
        document = document[key]
    assert document == value


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("tuning.max_job=6", "did you mean tuning.max_jobs"),
        ("max_jobs=6", "did you mean tuning.max_jobs"),
        ("epochs=6", "tuning.epochs or training.epochs"),
        ("qqq=1", "settings, and groups of them: budget_usd, data, debugger, endpoint_name, "),
        ("tuning=1", "tuning.max_jobs"),
        ("dataset=s3://other/", "kelpie run DATASET"),
        ("tuning.max_jobs", "expected key=value"),
        ("tuning.max_jobs=0", "tuning.max_jobs=0: expected an integer from 1 to 500"),
        ("tuning.max_jobs=many", "expected an integer from 1 to 500"),
        ("tuning.max_jobs=1.5", "expected an integer from 1 to 500"),
        ("gate.min_accuracy=1.01", "expected a number from 0 to 1"),
        ("gate.min_accuracy=NaN", "expected a number from 0 to 1"),
        ("tuning.ranges.eps.min=0", "expected a number above 0 and at most 1"),
        ("tuning.ranges.eps.min=-Infinity", "expected a number above 0 and at most 1"),
        ("tuning.ranges.batch_size=64,64", "without repeats"),
        ("tuning.ranges.batch_size=0", "tuning.ranges.batch_size[0]=0: expected an integer from 1 to 8192"),
        ("tuning.strategy=Guess", "one of Bayesian, Random"),
        ("debugger.enabled=yes", "true or false"),
        ("model.weights=/nowhere/weights.pth", "or an s3:// URI"),
        ("seed=", "expected an integer"),
    ],
)
def test_what_cannot_be_set_is_named_with_what_can(assignment, said):
    with pytest.raises(InvalidInput) as raised:
        execution_input([assignment], DATASET)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("Overfit.patience", "--parameter Overfit.patience: expected Rule.parameter=value"),
        ("Overfit.patience=0", "--parameter Overfit.patience=0: expected an integer from 1"),
        ("DeadRelu.threshold_layer=much", "--parameter DeadRelu.threshold_layer=much: expected a number from 0"),
        ("DeadRelu.treshold_layer=1", "there is no such setting; did you mean DeadRelu.threshold_layer"),
        ("DeadRelu=1", "--parameter DeadRelu: is a group, set one of DeadRelu.threshold_inactivity"),
    ],
)
def test_a_rules_parameter_is_checked_before_anything_is_fetched(assignment, said):
    with pytest.raises(InvalidInput) as raised:
        check_rule_parameter(assignment)
    assert said in str(raised.value)
    check_rule_parameter("Overfit.patience=3")


def test_a_dataset_that_is_no_uri_is_refused():
    with pytest.raises(InvalidInput, match="is not a data set"):
        execution_input([], "s3://B")


def test_every_setting_of_the_schema_can_be_said_in_words():
    def rules(schema):
        for rule in schema["properties"].values():
            yield from rules(rule) if rule.get("type") == "object" else [rule]

    schema = documents.schema(CONTRACT)
    assert all(expectation(rule) for rule in rules(schema))


def test_a_file_of_weights_is_taken_out_to_be_uploaded(tmp_path):
    file = tmp_path / "own.safetensors"
    file.touch()
    assignments = [f"model.weights={file}", "seed=3"]
    assert take_weights_file(assignments) == (["seed=3"], file)
    assert take_weights_file(["model.weights=default"]) == (["model.weights=default"], None)


def test_a_file_of_weights_may_be_below_the_user_s_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "own.pth").touch()
    assert take_weights_file(["model.weights=~/own.pth"]) == ([], tmp_path / "own.pth")


@pytest.mark.parametrize("name", ["gone.safetensors", "gone", "resnet50", ""])
def test_a_file_of_weights_that_is_not_there_is_said_not_to_be(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInput, match="there is no such file; expected default or none, a file that ends in"):
        take_weights_file([f"model.weights={name}"])
    uri = "model.weights=s3://bucket/own.safetensors"
    assert take_weights_file([uri]) == ([uri], None)


def test_a_file_of_weights_of_an_unknown_kind_is_refused(tmp_path):
    file = tmp_path / "own.onnx"
    file.touch()
    with pytest.raises(InvalidInput, match="safetensors"):
        take_weights_file([f"model.weights={file}"])
