"""The List actions: which records, in which order, and which page of them."""

from collections.abc import Mapping
from typing import Any

from localcloud.sagemaker.errors import validation_error

DEFAULT_MAX_RESULTS = 10  # AWS's
_TIMES = {
    "CreationTimeAfter": ("CreationTime", 1),
    "CreationTimeBefore": ("CreationTime", -1),
    "LastModifiedTimeAfter": ("LastModifiedTime", 1),
    "LastModifiedTimeBefore": ("LastModifiedTime", -1),
}


def list_page(
    parameters: Mapping[str, Any],
    records: list[dict[str, Any]],
    *,
    result: str,
    name: str,
    status: str = "",
    sort_by: str = "CreationTime",
    sort_order: str = "Ascending",
) -> dict[str, Any]:
    """Filter and sort records as the request asks; return a page under `result`, and NextToken if there are more.

    name, status: the members that NameContains, StatusEquals and SortBy mean; SortBy may also be the name of another
    member. sort_by, sort_order: the action's defaults. Raises ServiceError for a NextToken of another's making.
    """
    members = {"Name": name, "Status": status}
    by = parameters.get("SortBy", sort_by)
    descending = parameters.get("SortOrder", sort_order) == "Descending"
    found = [record for record in records if _passes(record, parameters, name, status)]
    found.sort(key=lambda record: (record[members.get(by, by)], record[name]), reverse=descending)
    token = parameters.get("NextToken", "0")
    if not token.isdecimal():
        raise validation_error(f"NextToken {token!r} is not one that this service gave: pass it on unchanged.")
    start = int(token)
    end = start + parameters.get("MaxResults", DEFAULT_MAX_RESULTS)
    return {result: found[start:end], "NextToken": str(end) if end < len(found) else None}


def _passes(record: dict[str, Any], parameters: Mapping[str, Any], name: str, status: str) -> bool:
    for filter_name, (member, side) in _TIMES.items():
        bound = parameters.get(filter_name)
        if bound is not None and (record[member] <= bound if side > 0 else record[member] >= bound):
            return False
    if parameters.get("NameContains", "").lower() not in record[name].lower():
        return False
    return "StatusEquals" not in parameters or record[status] == parameters["StatusEquals"]
