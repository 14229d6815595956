"""Records survive a restart, whole."""

import dataclasses
import json
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from localcloud.sagemaker.deployments import Deployment
from localcloud.sagemaker.store import FORMAT, RecordExists, RecordUnreadable, Store

NOW = datetime(2026, 11, 22, 12, 30, 15, 123456, UTC)


def test_records_are_there_again(tmp_path: Path):
    store = Store(tmp_path)
    store.create("job", "a", {"When": NOW, "Steps": [{"At": NOW}], "Map": {"x": None}})
    store.create("job", "A", {"Name": "another, also where case does not count"})
    store.create("tags", "arn:aws:sagemaker:x:1:training-job/" + "n" * 200, {"Tags": []})
    store.update("job", "a", lambda record: record.update(Done=True))
    again = Store(tmp_path)
    assert again.get("job", "a") == {"When": NOW, "Steps": [{"At": NOW}], "Map": {"x": None}, "Done": True}
    assert again.get("job", "A") == {"Name": "another, also where case does not count"}
    assert len(again.list("tags")) == 1


def test_a_name_is_taken_once(tmp_path: Path):
    store = Store(tmp_path)
    created = []

    def create(number: int) -> None:
        try:
            store.create("job", "a", {"by": number})
        except RecordExists:
            return
        created.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.get("job", "a") == {"by": created[0]}
    assert len(created) == 1


def test_a_failed_change_changes_nothing(tmp_path: Path):
    store = Store(tmp_path)
    store.create("job", "a", {"State": "running"})

    def change(record: dict) -> None:
        record["State"] = "spoilt"
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        store.update("job", "a", change)
    assert store.get("job", "a") == Store(tmp_path).get("job", "a") == {"State": "running"}


def test_callers_hold_copies(tmp_path: Path):
    store = Store(tmp_path)
    given = {"List": [1]}
    store.create("job", "a", given)
    given["List"].append(2)
    taken = store.get("job", "a")
    assert taken == {"List": [1]}
    taken["List"].append(3)
    assert store.get("job", "a") == {"List": [1]}


def test_deleted_records_are_gone(tmp_path: Path):
    store = Store(tmp_path)
    store.create("job", "a", {})
    store.delete("job", "a")
    assert store.get("job", "a") is None
    assert Store(tmp_path).list("job") == []
    with pytest.raises(KeyError):
        store.delete("job", "a")


def test_what_a_killed_writer_left_is_not_read(tmp_path: Path):
    Store(tmp_path).create("job", "a", {})
    (tmp_path / "job" / "b.tmp").write_text('{"half')
    assert len(Store(tmp_path).list("job")) == 1


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"name": "a", "record": {}}, "another version: its format is an older one"),
        ({"format": FORMAT + 1, "name": "a", "record": {}}, f"its format is {FORMAT + 1}, not {FORMAT}"),
        (None, "is no record"),
    ],
)
def test_a_record_of_another_version_is_refused_by_its_files_name(tmp_path: Path, document, said):
    Store(tmp_path).create("job", "a", {})
    (path,) = tmp_path.glob("job/*.json")
    path.write_text(json.dumps(document) if document else "{")
    with pytest.raises(RecordUnreadable, match=said) as refused:
        Store(tmp_path)
    assert str(path) in str(refused.value)


def test_whoever_changes_what_deployments_hold_gives_the_records_another_format():
    """An endpoint of the version before would end the next start with a TypeError."""
    assert (FORMAT, [field.name for field in dataclasses.fields(Deployment)]) == (
        2,
        [
            "fleet_id",
            "config_name",
            "variant_name",
            "instance_count",
            "weight",
            "image",
            "model_data_url",
            "environment",
            "role_arn",
            "startup_timeout_seconds",
            "data_capture",
            "instance_type",
            "serverless",
        ],
    )
