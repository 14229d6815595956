"""What `--help` shows on a screen of 80 columns."""

import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from kelpie.command import application


def shown(*arguments):
    done = CliRunner().invoke(application, [*arguments, "--help"], env={"COLUMNS": "80"})
    assert done.exit_code == 0
    return done.output


def test_every_command_is_summed_up_in_a_whole_sentence():
    _head, commands = shown().split("Commands:\n")
    lines = commands.partition("\n\n")[0].splitlines()
    assert len(lines) == len(application.registered_commands)
    assert [line for line in lines if "..." in line or not line.endswith(".")] == []


def test_the_version_is_the_project_s():
    (said,) = re.findall(
        r'^version = "(.+)"$', (Path(__file__).parents[3] / "pyproject.toml").read_text(), re.MULTILINE
    )
    done = CliRunner().invoke(application, ["--version"])
    assert (done.exit_code, done.output) == (0, f"kelpie {said}\n")


@pytest.mark.parametrize("name", typer.main.get_command(application).commands)
def test_options_take_what_their_names_say_and_not_types(name):
    said = shown(name)
    assert [word for word in ("range>", "list[", "<path>", "...") if word in said.partition("\n")[2]] == []
