"""What `--help` shows on a screen of 80 columns."""

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


@pytest.mark.parametrize("name", typer.main.get_command(application).commands)
def test_options_take_what_their_names_say_and_not_types(name):
    said = shown(name)
    assert [word for word in ("range>", "list[", "<path>", "...") if word in said.partition("\n")[2]] == []
