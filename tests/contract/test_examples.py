"""Each contract is a draft-07 schema, and its example satisfies it."""

import json
from pathlib import Path

import fastjsonschema
import pytest

CONTRACTS = Path(__file__).parents[2] / "contracts"
NAMES = sorted(path.name.removesuffix(".schema.json") for path in CONTRACTS.glob("*.schema.json"))


def test_every_contract_has_an_example_and_every_example_a_contract():
    assert sorted(path.stem for path in (CONTRACTS / "examples").glob("*.json")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_example_satisfies_its_contract(name):
    validate = fastjsonschema.compile(json.loads((CONTRACTS / f"{name}.schema.json").read_text()))
    example = json.loads((CONTRACTS / "examples" / f"{name}.json").read_text())
    validate(example)
    with pytest.raises(fastjsonschema.JsonSchemaValueException):
        validate({**example, "surplus": 1})
