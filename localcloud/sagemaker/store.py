"""Records of the service by kind and name, in memory and, one JSON file each, under the service's home.

A record is a dictionary of plain values and aware datetimes. Every change is written at once and atomically, so that
what a killed service leaves behind is always whole. Callers get and give copies; `update` is the only way to change a
record that others read.
"""

import copy
import hashlib
import json
import re
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

Record = dict[str, Any]

FORMAT = 2
"""Of what the records hold: another number wherever one of them lacks, or has, what this version does not expect."""


class RecordUnreadable(Exception):
    """A record cannot be read, or was kept by a version whose records hold other things; the message names its file."""


class RecordExists(Exception):
    """A record of this kind and name is there already."""


class Store:
    def __init__(self, folder: Path):
        """Raises RecordUnreadable."""
        self._folder = folder
        self._lock = threading.RLock()
        self._records: dict[str, dict[str, Record]] = {}
        for path in sorted(folder.glob("*/*.json")):
            document = _read(path)
            self._records.setdefault(path.parent.name, {})[document["name"]] = document["record"]

    def create(self, kind: str, name: str, record: Record) -> None:
        """Add a record. Raises RecordExists, and then changes nothing."""
        with self._lock:
            if name in self._records.get(kind, {}):
                raise RecordExists(f"{kind} {name}")
            self._put(kind, name, copy.deepcopy(record))

    def get(self, kind: str, name: str) -> Record | None:
        with self._lock:
            return copy.deepcopy(self._records.get(kind, {}).get(name))

    def list(self, kind: str) -> list[Record]:
        """All records of a kind, in no promised order."""
        with self._lock:
            return [copy.deepcopy(record) for record in self._records.get(kind, {}).values()]

    def update(self, kind: str, name: str, change: Callable[[Record], None]) -> Record:
        """Apply `change` to the record while nobody else can; return the result. Raises KeyError if there is no such
        record.

        If `change` raises, the record stays as it was.
        """
        with self._lock:
            record = copy.deepcopy(self._records.get(kind, {})[name])
            change(record)
            self._put(kind, name, record)
            return copy.deepcopy(record)

    def delete(self, kind: str, name: str) -> None:
        """Remove a record. Raises KeyError if there is no such record."""
        with self._lock:
            del self._records.get(kind, {})[name]
            self._path(kind, name).unlink(missing_ok=True)

    def _put(self, kind: str, name: str, record: Record) -> None:
        path = self._path(kind, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(
            json.dumps({"format": FORMAT, "name": name, "record": record}, default=_dismantle, indent=1)
        )
        temporary.replace(path)
        self._records.setdefault(kind, {})[name] = record

    def _path(self, kind: str, name: str) -> Path:
        # The digest tells apart what a file system that ignores case, or the shortening, would not.
        readable = re.sub(r"[^A-Za-z0-9.-]", "_", name)[-80:]
        return self._folder / kind / f"{readable}-{hashlib.sha256(name.encode()).hexdigest()[:12]}.json"


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(), object_hook=_revive)
    except ValueError as error:
        raise RecordUnreadable(f"{path} is no record: {error}") from error
    if document.get("format") != FORMAT:
        kept = document.get("format", "an older one")
        raise RecordUnreadable(f"{path} was kept by another version: its format is {kept}, not {FORMAT}")
    return document


def _dismantle(value: object) -> dict[str, str]:
    if isinstance(value, datetime):
        return {"$datetime": value.isoformat()}
    raise TypeError(f"a record cannot hold {type(value).__name__}")


def _revive(value: dict) -> Any:
    return datetime.fromisoformat(value["$datetime"]) if value.keys() == {"$datetime"} else value
