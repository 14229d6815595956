"""`kelpie ui` in front of a stack on a local cloud whose jobs are stand-ins, so that a run takes seconds."""

import importlib.util
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from playwright.sync_api import Page

TESTS = Path(__file__).parents[2]
NAME = "kelpie"


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"fixtures_of_{path.parent.name}", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


_clouds = load(TESTS / "local" / "conftest.py")
_stacks = load(TESTS / "local" / "run" / "conftest.py")
cloud, session = _clouds.cloud, _clouds.session
product, make_stack = _stacks.product, _stacks.make_stack


@dataclass
class Ui:
    """A running `kelpie ui`: the address that it printed, and the stack behind it."""

    stack: Any
    address: str

    @property
    def origin(self) -> str:
        return self.address.partition("/?")[0]

    @property
    def key(self) -> str:
        return self.address.partition("key=")[2]


@pytest.fixture(scope="session")
def stack(make_stack: Callable[[str], Any]) -> Any:
    return make_stack(NAME)


@pytest.fixture(scope="session")
def environment(stack: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A user's, who has the permissions of docs/permissions.md and no others, in a folder that knows no cloud."""
    iam, folder = stack.client("iam"), tmp_path_factory.mktemp("home")
    policy = re.search(r"```json\n(.*?)```", (TESTS.parent / "docs" / "permissions.md").read_text(), re.DOTALL)
    assert policy
    words = {"PREFIX": NAME, "BUCKET": stack.outputs["Bucket"], "REGION": "*", "ACCOUNT": "*"}
    document = re.sub("|".join(words), lambda word: words[word[0]], policy[1])
    iam.create_user(UserName="looks-on")
    iam.put_user_policy(UserName="looks-on", PolicyName="command", PolicyDocument=document)
    key = iam.create_access_key(UserName="looks-on")["AccessKey"]
    own = {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}
    return stack.cloud.environment | own | {"HOME": str(folder), "PATH": "/usr/bin:/bin", "KELPIE_STACK": NAME}


@pytest.fixture(scope="session")
def kelpie(environment: dict[str, str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command to its end, as that user."""

    def kelpie(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "kelpie", *arguments]
        return subprocess.run(
            command, cwd=environment["HOME"], env=environment, capture_output=True, text=True, check=False
        )

    return kelpie


@pytest.fixture(scope="session")
def ui(stack: Any, environment: dict[str, str]) -> Iterator[Ui]:
    """The page as a user serves it."""
    command = [sys.executable, "-m", "kelpie", "ui", "--no-browser"]
    with subprocess.Popen(
        command, cwd=environment["HOME"], env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr
        lines = []
        for line in process.stderr:
            lines.append(line)
            if found := re.search(r"http://127\.0\.0\.1:\d+/\?key=\S+", line):
                break
        else:
            pytest.fail("".join(lines))
        yield Ui(stack, found[0])
        process.terminate()


@pytest.fixture(scope="session")
def finished(ui: Ui) -> str:
    """The name of a run that has put an endpoint into service."""
    ended = ui.stack.run(ui.stack.dataset(), endpoint_name=ui.stack.name)
    assert ended["status"] == "SUCCEEDED", f"{ended.get('error')}: {ended.get('cause')}"
    return str(ended["name"])


@pytest.fixture
def open_ui(ui: Ui, open_page: Callable[..., Page]) -> Callable[..., Page]:
    """Open the page as the printed address does, then go to a path of it."""

    def open_ui(path: str = "/", **options: Any) -> Page:
        page = open_page(ui.address, **options)
        if path != "/":
            page.goto(ui.origin + path)
        return page

    return open_ui
