"""What comes from outside is shown as it is: names of files, classes and data sets are no markup."""

from pathlib import Path

import pytest
from rich.table import Table

from kelpie.commands import cloud, terminal

SOURCES = Path(terminal.__file__).parents[1]


@pytest.fixture(params=["photo [bw].jpg", "[red]fox", "x[/y].jpg", ":dog:", "a\\[bold]\\"])
def name(request):
    return request.param


@pytest.fixture
def on_a_terminal(monkeypatch):
    for variable, value in {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "200"}.items():
        monkeypatch.setenv(variable, value)


def test_cells_and_lines_of_a_result_are_as_they_are(capsys, name):
    table = Table("File", box=None, pad_edge=False)
    table.add_row(name)
    terminal.result_console().print(table)
    terminal.result_console().print(name)
    _head, *said = capsys.readouterr().out.splitlines()
    assert [line.rstrip() for line in said] == [name, name]


def test_off_a_terminal_no_line_ends_in_blanks_and_none_is_cut(capsys):
    table = Table("File", "Reason", box=None, pad_edge=False)
    table.add_row("a.jpg", "so long " * 500 + "a reason")
    table.add_row("longer-than-the-first.jpg", "")
    terminal.result_console().print(table)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert [line for line in lines if line != line.rstrip()] == []


@pytest.mark.usefixtures("on_a_terminal")
def test_bars_say_what_is_copied_as_it_is(capsys, name):
    with terminal.bytes_bars(name, 1) as advance:
        advance("upload", 1)
    shown = capsys.readouterr().err
    assert f"reading {name}" in shown
    assert f"uploading {name}" in shown


def test_off_a_terminal_a_bar_leaves_nothing(capsys):
    with terminal.bytes_bars("photos", 1) as advance:
        advance("upload", 1)
    with terminal.count_bar(1, "classified") as advance:
        advance()
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("on_a_terminal")
def test_what_a_deployment_says_is_as_it_is(capsys, name):
    with cloud.deployment() as show:
        show(name)
    assert f" {name}" in capsys.readouterr().err


def test_no_other_module_makes_a_console_that_could_read_markup():
    makers = [path.name for path in SOURCES.rglob("*.py") if " Console(" in path.read_text()]
    assert makers == ["terminal.py"]
