"""Nothing that was started outlives its end, the cloud's end, or the cloud's sudden end."""

import contextlib
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from localcloud.processes import ProcessSpec, Supervised, spawn
from tests.waiting import PATIENCE_SECONDS, wait_for

ENVIRONMENT = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
# Each writes its process id into a file of the working directory; `two` leaves the process group.
DESCENDANTS = (
    "(sh -c 'echo $$ > one; exec sleep 601' &); (setsid sh -c 'echo $$ > two; exec sleep 602' &); "
    "echo $$ > three; exec sleep 603"
)


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., tuple[Supervised, list[str]]]:
    def start(*argv: str) -> tuple[Supervised, list[str]]:
        lines: list[str] = []
        return spawn(ProcessSpec(argv, ENVIRONMENT, tmp_path), lines.append), lines

    return start


def written(folder: Path) -> list[str]:
    """Return the process ids that were written into the folder."""
    return [text for file in sorted(folder.iterdir()) if (text := file.read_text().strip())]


def running(folder: Path) -> list[str]:
    """Return those of them that still run; `ps` also shows, as Z, what has ended and was not yet collected."""
    found = subprocess.run(["ps", "-o", "pid=,stat=", "-p", ",".join(written(folder))], capture_output=True, text=True)
    return [line for line in found.stdout.splitlines() if "Z" not in line]


def test_lines_and_exit_code_arrive(start):
    process, lines = start("sh", "-c", "echo out; echo err >&2; printf 'no end'; exit 3")
    assert process.wait(PATIENCE_SECONDS) == 3
    assert lines == ["out", "err", "no end"]


def test_environment_is_only_what_was_given(start):
    process, lines = start("env")
    process.wait(PATIENCE_SECONDS)
    assert sorted(lines) == ["LANG=C.UTF-8", f"PATH={os.environ['PATH']}"]


def test_a_termination_in_the_moment_of_the_start_is_not_lost(start):
    """The order is there before the supervisor is: it sends SIGTERM to a child that has only just been forked."""
    process, _ = start("sleep", "600")
    process.begin_termination(600)
    assert process.wait(PATIENCE_SECONDS) == 128 + signal.SIGTERM


def test_a_cloud_with_many_open_files_starts_processes_all_the_same(start):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(2000, hard), hard))
    with contextlib.ExitStack() as open_files:
        try:
            for _ in range(1100):
                open_files.enter_context(Path(os.devnull).open())
            process, lines = start("echo", "started")
            assert process.wait(PATIENCE_SECONDS) == 0
            assert lines == ["started"]
        finally:
            open_files.close()
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_program_that_is_not_there_says_so(start):
    process, lines = start("no-such-program")
    assert process.wait(PATIENCE_SECONDS) == 127
    assert lines == ["cannot start no-such-program: No such file or directory"]


def test_long_and_broken_lines_are_delivered(start):
    process, lines = start(sys.executable, "-c", r"import os; os.write(1, b'x' * 20000 + b'\n\xff\n\nlast\r\n')")
    process.wait(PATIENCE_SECONDS)
    assert "".join(lines[:2]) == "x" * 20000
    assert lines[2:] == ["\ufffd", "", "last"]


def test_a_line_that_cannot_be_taken_does_not_stop_the_process(tmp_path, caplog):
    process = spawn(
        ProcessSpec(["sh", "-c", "echo 1; echo two; exit 4"], ENVIRONMENT, tmp_path), lambda line: int(line)
    )
    assert process.wait(PATIENCE_SECONDS) == 4
    assert "invalid literal" in caplog.text


def test_a_signal_is_128_and_more(start):
    process, _ = start("sh", "-c", "kill -9 $$")
    assert process.wait(PATIENCE_SECONDS) == 137


def test_sigterm_lets_the_process_end_in_its_own_way(start):
    process, lines = start("sh", "-c", "trap 'echo saved; exit 0' TERM; echo ready; while :; do sleep 0.02; done")
    wait_for(lambda: lines == ["ready"])
    assert process.wait(0.05) is None
    assert process.terminate(grace_seconds=600) == 0
    assert lines == ["ready", "saved"]


def test_after_the_grace_it_is_killed(start):
    process, lines = start("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.02; done")
    wait_for(lambda: lines == ["ready"])
    process.begin_termination(grace_seconds=600)
    assert process.wait(0.2) is None
    assert process.terminate(grace_seconds=0.1) == 137


def test_terminating_what_has_ended_is_nothing(start):
    process, _ = start("true")
    assert process.wait(PATIENCE_SECONDS) == 0
    assert process.terminate(grace_seconds=10) == 0


def test_what_the_process_leaves_behind_ends_with_it(start, tmp_path):
    ending = DESCENDANTS.replace("exec sleep 603", "while ! test -s one -a -s two; do sleep 0.01; done; exit 5")
    process, _ = start("sh", "-c", ending)
    assert process.wait(PATIENCE_SECONDS) == 5
    assert len(written(tmp_path)) == 3
    assert running(tmp_path) == []


def test_descendants_are_killed_too(start, tmp_path):
    process, _ = start("sh", "-c", DESCENDANTS)
    wait_for(lambda: len(written(tmp_path)) == 3)
    process.terminate(grace_seconds=0)
    assert running(tmp_path) == []


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_outlives_the_cloud(tmp_path, end):
    code = (
        "import sys, pathlib, threading, os\n"
        "from localcloud.processes import ProcessSpec, spawn\n"
        "spec = ProcessSpec(['sh', '-c', sys.argv[2]], {'PATH': os.environ['PATH']}, pathlib.Path(sys.argv[1]))\n"
        "threading.Thread(target=lambda: spawn(spec, print)).start()\n"  # a thread that ends is not the cloud that ends
        "threading.Event().wait()\n"
    )
    cloud = subprocess.Popen([sys.executable, "-c", code, str(tmp_path), DESCENDANTS])
    try:
        wait_for(lambda: len(written(tmp_path)) == 3)
        assert len(running(tmp_path)) == 3
    finally:
        cloud.send_signal(end)
        cloud.wait(PATIENCE_SECONDS)
    wait_for(lambda: running(tmp_path) == [])


def test_the_process_dies_with_its_supervisor(start, tmp_path):
    process, _ = start("sh", "-c", "echo $$ > one; echo $PPID > supervisor; exec sleep 603")
    wait_for(lambda: len(written(tmp_path)) == 2)
    os.kill(int((tmp_path / "supervisor").read_text()), signal.SIGKILL)
    wait_for(lambda: running(tmp_path) == [])
    assert process.wait(PATIENCE_SECONDS) is not None
