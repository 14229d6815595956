"""The form has a field for every setting, and says by field what is wrong."""

import pytest

from kelpie import settings
from kelpie.ui import form


def fields(groups):
    for group in groups:
        yield from group.fields
        yield from fields(group.groups)


def by_key():
    return {field.key: field for field in fields(form.groups())}


def test_every_setting_has_a_field_with_what_it_is():
    found = list(fields(form.groups()))
    assert [field.key for field in found] == sorted({field.key for field in found}, key=[f.key for f in found].index)
    assert {field.key for field in found} == set(settings.rules())
    assert all(field.label and field.description for field in found)


def test_fields_know_their_defaults_choices_and_ranges():
    found = by_key()
    assert found["tuning.ranges.batch_size"].default == "64, 128"
    assert found["tuning.ranges.learning_rate.min"].default == "1e-05"
    assert found["tuning.strategy"].choices == ("Bayesian", "Random")
    assert found["debugger.enabled"].choices == ("true", "false")
    assert found["tuning.max_jobs"].expected == "an integer from 1 to 500"


def test_whatever_a_field_offers_is_taken():
    for field in fields(form.groups()):
        for text in (*field.choices, field.default):
            assert form.problems(None, {field.key: text}) == {}, field


def test_rules_keep_their_names():
    actions = next(group for group in form.groups() if group.key == "debugger").groups[0]
    assert [field.label for field in actions.fields] == [field.key.rpartition(".")[2] for field in actions.fields]
    assert by_key()["debugger.parameters.CheckInputImages.threshold_mean"].label == "Threshold mean"


def test_weights_may_be_a_file_on_this_machine_as_for_the_command(tmp_path):
    file = tmp_path / "own.safetensors"
    file.touch()
    assert form.problems(None, {"model.weights": str(file)}) == {}
    assert form.problems(None, {"model.weights": f"{file}.gone"})["model.weights"].startswith("there is no such file")


def test_what_is_wrong_is_said_for_every_field_at_once():
    given = {"tuning.max_jobs": "0", "model.dropout": "much", "tuning.ranges.batch_size": "64, 64", "seed": " 7 "}
    found = form.problems(None, given)
    assert found["tuning.max_jobs"] == "expected an integer from 1 to 500"
    assert set(found) == {"tuning.max_jobs", "model.dropout", "tuning.ranges.batch_size"}


@pytest.mark.parametrize(
    ("dataset", "said"),
    [(" ", "say which"), ("/no/such/folder", "no such folder"), ("s3://Not A Bucket/", "is not a data set")],
)
def test_a_data_set_that_cannot_be_used_is_said_at_its_field(dataset, said):
    assert said in form.problems(dataset, {})["dataset"]


def test_only_what_is_filled_in_is_set():
    assert form.assignments({"seed": " 7 ", "model.dropout": "", "tuning.max_jobs": "  "}) == ["seed=7"]
    assert form.problems("s3://bucket/photos/", {"seed": "7"}) == {}


def test_an_unknown_field_is_refused():
    assert "no such setting" in form.problems(None, {"model.colour": "red"})["model.colour"]
