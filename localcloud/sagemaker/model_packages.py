"""Model packages: what there is to know of a trained model, in versions of a group or under a name of its own.

A package is a record: nothing of it is checked against S3 or run, so it is Completed at once. A model made of it takes
its first container from it, as it is then.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from localcloud.sagemaker.account import Account
from localcloud.sagemaker.errors import ServiceError, resource_limit_exceeded, validation_error
from localcloud.sagemaker.listing import list_page
from localcloud.sagemaker.store import RecordExists
from localcloud.sagemaker.validation import Support, refuse_unsupported

KIND = "model-package"
GROUP_KIND = "model-package-group"
MOST_METADATA = 50

_CONTAINERS = "InferenceSpecification.Containers[]"
_INFERENCE = {
    *(f"{_CONTAINERS}.{member}" for member in ("Image", "ImageDigest", "ModelDataUrl", "Environment", "ModelInput")),
    *(f"{_CONTAINERS}.{member}" for member in ("Framework", "FrameworkVersion", "NearestModelName", "ModelDataETag")),
    "InferenceSpecification.SupportedTransformInstanceTypes",
    "InferenceSpecification.SupportedRealtimeInferenceInstanceTypes",
    "InferenceSpecification.SupportedContentTypes",
    "InferenceSpecification.SupportedResponseMIMETypes",
}
_HOST_NAME = {f"{_CONTAINERS}.ContainerHostname": "with one container nothing is addressed by its host name"}
CREATE_SUPPORT = Support(
    honoured=frozenset(
        {
            "ModelPackageName",
            "ModelPackageGroupName",
            "ModelPackageDescription",
            "ModelApprovalStatus",
            "MetadataProperties",
            "ModelMetrics",
            "DriftCheckBaselines",
            "CustomerMetadataProperties",
            "Domain",
            "Task",
            "SamplePayloadUrl",
            "SourceUri",
            "ModelLifeCycle",
            "ClientToken",
            "Tags",
            *_INFERENCE,
        }
    ),
    only={
        "CertifyForMarketplace": ((False,), "there is no marketplace"),
        "ModelPackageRegistrationType": (("Registered",), "every package is a registered one"),
    },
    ignored={"SkipModelValidation": "nothing is validated by running it", **_HOST_NAME},
)
DESCRIBE_SUPPORT = Support(
    honoured=frozenset({"ModelPackageName"}),
    only={"IncludedData": (("AllData",), "a description is never shortened")},
)
UPDATE_SUPPORT = Support(
    honoured=frozenset(
        {
            "ModelPackageArn",
            "ModelApprovalStatus",
            "ApprovalDescription",
            "CustomerMetadataProperties",
            "CustomerMetadataPropertiesToRemove",
            "SourceUri",
            "ModelLifeCycle",
            *_INFERENCE,
        }
    ),
    only={"ModelPackageRegistrationType": (("Registered",), "every package is a registered one")},
    ignored={"ClientToken": "the same update twice is as good as once", **_HOST_NAME},
)
GROUP_SUPPORT = Support(
    honoured=frozenset({"ModelPackageGroupName", "ModelPackageGroupDescription", "Tags"}),
)
LIST_GROUPS_SUPPORT = Support(
    honoured=frozenset(
        {
            "CreationTimeAfter",
            "CreationTimeBefore",
            "MaxResults",
            "NameContains",
            "NextToken",
            "SortBy",
            "SortOrder",
        }
    ),
    only={"CrossAccountFilterOption": (("SameAccount",), "there is one account")},
)


class ModelPackageGroups:
    def __init__(self, account: Account):
        self._account = account
        self._store = account.store

    def create_model_package_group(self, parameters: dict[str, Any]) -> dict[str, Any]:
        refuse_unsupported("CreateModelPackageGroup", parameters, GROUP_SUPPORT)
        name = parameters["ModelPackageGroupName"]
        arn = self._account.arn(f"model-package-group/{name}")
        record = {
            "ModelPackageGroupName": name,
            "ModelPackageGroupArn": arn,
            "ModelPackageGroupDescription": parameters.get("ModelPackageGroupDescription"),
            "CreationTime": datetime.now(UTC),
            "CreatedBy": {},
            "ModelPackageGroupStatus": "Completed",
            "LatestVersion": 0,
        }
        try:
            self._store.create(GROUP_KIND, name, record)
        except RecordExists:
            raise validation_error(f"Model Package Group already exists: {arn}") from None
        self._account.tags.register(arn, parameters.get("Tags"))
        return {"ModelPackageGroupArn": arn}

    def describe_model_package_group(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        return self.get(parameters["ModelPackageGroupName"])

    def list_model_package_groups(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        refuse_unsupported("ListModelPackageGroups", parameters, LIST_GROUPS_SUPPORT)
        return list_page(
            parameters,
            self._store.list(GROUP_KIND),
            result="ModelPackageGroupSummaryList",
            name="ModelPackageGroupName",
        )

    def delete_model_package_group(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        group = self.get(parameters["ModelPackageGroupName"])
        name = group["ModelPackageGroupName"]
        if any(package.get("ModelPackageGroupName") == name for package in self._store.list(KIND)):
            raise ServiceError(
                "ConflictException",
                f"Model Package Group cannot be deleted because it still contains Model Packages: "
                f"{group['ModelPackageGroupArn']}",
            )
        self._store.delete(GROUP_KIND, name)
        self._account.tags.forget(group["ModelPackageGroupArn"])
        return {}

    def get(self, name_or_arn: str) -> dict[str, Any]:
        """Raises ServiceError if there is no such group."""
        name = name_or_arn.rpartition("/")[2]
        group = self._store.get(GROUP_KIND, name)
        if group is None:
            arn = self._account.arn(f"model-package-group/{name}")
            raise validation_error(f"Model Package Group {arn} does not exist.")
        return group

    def next_version(self, name: str) -> int:
        """A number that no package of the group ever had, whether it was deleted or not."""

        def change(group: dict[str, Any]) -> None:
            group["LatestVersion"] += 1

        return self._store.update(GROUP_KIND, name, change)["LatestVersion"]


class ModelPackages:
    def __init__(self, account: Account, groups: ModelPackageGroups):
        self._account = account
        self._groups = groups
        self._store = account.store

    def create_model_package(self, parameters: dict[str, Any]) -> dict[str, Any]:
        refuse_unsupported("CreateModelPackage", parameters, CREATE_SUPPORT)
        versioned = "ModelPackageGroupName" in parameters
        if versioned and "ModelPackageName" in parameters:
            raise validation_error(
                "Both ModelPackageName and ModelPackageGroupName are provided in the input. "
                "Cannot determine which one to use."
            )
        if not versioned and "ModelPackageName" not in parameters:
            raise validation_error("Missing ARN.")
        if not versioned and "ModelApprovalStatus" in parameters:
            raise validation_error("ModelApprovalStatus applies to versioned model packages only.")
        earlier = self._of_token(parameters.get("ClientToken"))
        if earlier is not None:
            return {"ModelPackageArn": earlier["ModelPackageArn"]}
        now = datetime.now(UTC)
        record = {key: value for key, value in parameters.items() if key != "Tags"} | {
            "CreationTime": now,
            "ModelPackageStatus": "Completed",
            "ModelPackageStatusDetails": {"ValidationStatuses": [], "ImageScanStatuses": []},
            "CertifyForMarketplace": False,
        }
        if versioned:
            group = self._groups.get(parameters["ModelPackageGroupName"])["ModelPackageGroupName"]
            version = self._groups.next_version(group)
            record |= {"ModelPackageGroupName": group, "ModelPackageVersion": version}
            record.setdefault("ModelApprovalStatus", "PendingManualApproval")
        name = f"{group}/{version}" if versioned else parameters["ModelPackageName"]
        arn = self._account.arn(f"model-package/{name}")
        record |= {"ModelPackageArn": arn, "Name": f"{group}/{version:09d}" if versioned else name}
        try:
            self._store.create(KIND, name, record)
        except RecordExists:
            raise ServiceError("ConflictException", f"Model Package already exists: {arn}") from None
        self._account.tags.register(arn, parameters.get("Tags"))
        self._announce(record, [])
        return {"ModelPackageArn": arn}

    def describe_model_package(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        refuse_unsupported("DescribeModelPackage", parameters, DESCRIBE_SUPPORT)
        return self.get(parameters["ModelPackageName"])

    def update_model_package(self, parameters: dict[str, Any]) -> dict[str, Any]:
        refuse_unsupported("UpdateModelPackage", parameters, UPDATE_SUPPORT)
        package = self.get(parameters["ModelPackageArn"])
        if "ModelPackageVersion" not in package:
            raise validation_error(f"{package['ModelPackageArn']} is not a versioned model package: it stays as it is.")
        members = (
            "ModelApprovalStatus",
            "ApprovalDescription",
            "SourceUri",
            "ModelLifeCycle",
            "InferenceSpecification",
        )
        given = {member: parameters[member] for member in members if member in parameters}
        removed = parameters.get("CustomerMetadataPropertiesToRemove", [])

        def change(record: dict[str, Any]) -> None:
            metadata = record.get("CustomerMetadataProperties", {}) | parameters.get("CustomerMetadataProperties", {})
            kept = {key: value for key, value in metadata.items() if key not in removed}
            if len(kept) > MOST_METADATA:
                raise resource_limit_exceeded(
                    f"A model package has at most {MOST_METADATA} CustomerMetadataProperties; "
                    f"this one would have {len(kept)}"
                )
            record.update(given, CustomerMetadataProperties=kept or None, LastModifiedTime=datetime.now(UTC))

        record = self._store.update(KIND, _key(package["ModelPackageArn"]), change)
        self._announce(record, [member for member in parameters if member not in ("ModelPackageArn", "ClientToken")])
        return {"ModelPackageArn": package["ModelPackageArn"]}

    def delete_model_package(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """A model that was made of it is served on."""
        package = self.get(parameters["ModelPackageName"])
        self._store.delete(KIND, _key(package["ModelPackageArn"]))
        self._account.tags.forget(package["ModelPackageArn"])
        return {}

    def list_model_packages(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Of one group, or else of a ModelPackageType: Unversioned, as on AWS, unless it is given."""
        group, kind = parameters.get("ModelPackageGroupName"), parameters.get("ModelPackageType", "Unversioned")
        packages = self._store.list(KIND)
        if group is not None:
            name = self._groups.get(group)["ModelPackageGroupName"]
            packages = [package for package in packages if package.get("ModelPackageGroupName") == name]
        elif kind != "Both":
            versioned = kind == "Versioned"
            packages = [package for package in packages if ("ModelPackageVersion" in package) == versioned]
        approval = parameters.get("ModelApprovalStatus")
        if approval is not None:
            packages = [package for package in packages if package.get("ModelApprovalStatus") == approval]
        return list_page(parameters, packages, result="ModelPackageSummaryList", name="Name")

    def get(self, name_or_arn: str) -> dict[str, Any]:
        """Raises ServiceError if there is no such package."""
        package = self._store.get(KIND, _key(name_or_arn))
        if package is None:
            arn = self._account.arn(f"model-package/{_key(name_or_arn)}")
            raise validation_error(f"ModelPackage {arn} does not exist.")
        return package

    def container(self, name_or_arn: str) -> dict[str, Any]:
        """The container that a model made of this package has. Raises ServiceError if it may not be deployed."""
        package = self.get(name_or_arn)
        if package.get("ModelApprovalStatus", "Approved") != "Approved":
            raise validation_error(
                f"The model package {package['ModelPackageArn']} cannot be deployed: its ModelApprovalStatus is "
                f"{package['ModelApprovalStatus']}, and must be Approved."
            )
        containers = package.get("InferenceSpecification", {}).get("Containers", [])
        if len(containers) != 1 or not containers[0].get("Image"):
            raise validation_error(
                f"The model package {package['ModelPackageArn']} has {len(containers)} containers in its "
                "InferenceSpecification: a model needs one, with an Image."
            )
        return containers[0]

    def _of_token(self, token: str | None) -> dict[str, Any] | None:
        same = (package for package in self._store.list(KIND) if package.get("ClientToken") == token)
        return None if token is None else next(same, None)

    def _announce(self, record: Mapping[str, Any], updated: list[str]) -> None:
        kind, arn = "SageMaker Model Package State Change", record["ModelPackageArn"]
        self._account.announce(kind, arn, lambda tags: state_change_detail(record, updated, tags))


def state_change_detail(record: Mapping[str, Any], updated: list[str], tags: list[dict[str, str]]) -> dict[str, Any]:
    """The event's detail; times are milliseconds since 1970. updated: the members that UpdateModelPackage changed.

    https://docs.aws.amazon.com/sagemaker/latest/dg/automating-sagemaker-with-eventbridge.html"""
    internal = ("Name", "ClientToken")
    detail = {
        key: int(value.timestamp() * 1000) if isinstance(value, datetime) else value
        for key, value in record.items()
        if key not in internal and value is not None
    }
    tagged = {**detail, "Tags": {tag["Key"]: tag["Value"] for tag in tags}}
    return tagged | ({"UpdatedModelPackageFields": updated} if updated else {})


def _key(name_or_arn: str) -> str:
    """`group/3` or `name` of an ARN, or of what is no ARN."""
    return name_or_arn.partition("model-package/")[2] if name_or_arn.startswith("arn:") else name_or_arn
