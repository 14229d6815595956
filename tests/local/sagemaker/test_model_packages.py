"""Model packages and their groups: versions, approval, metadata, and models that are made of them."""

from typing import Any

import pytest

from localcloud.sagemaker.errors import ServiceError

ROLE = "arn:aws:iam::123456789012:role/serving"
IMAGE = "123.dkr.ecr.x.amazonaws.com/tiny:1"
ARN = "arn:aws:sagemaker:us-east-1:123456789012"


@pytest.fixture
def url(outside) -> str:
    return outside.put("model.tar.gz", b"weights")


@pytest.fixture(autouse=True)
def _group(sagemaker) -> None:
    sagemaker.call("CreateModelPackageGroup", {"ModelPackageGroupName": "kelp"})


def package(url: str, **members: Any) -> dict[str, Any]:
    container = {"Image": IMAGE, "ModelDataUrl": url, "Environment": {"A": "package", "B": "package"}}
    return {
        "ModelPackageGroupName": "kelp",
        "InferenceSpecification": {
            "Containers": [container],
            "SupportedContentTypes": ["image/jpeg"],
            "SupportedResponseMIMETypes": ["application/json"],
        },
        "ModelMetrics": {
            "ModelQuality": {"Statistics": {"ContentType": "application/json", "S3Uri": "s3://the-bucket/e.json"}}
        },
        "CustomerMetadataProperties": {"data_digest": "d1", "accuracy": "0.9"},
        **members,
    }


def create(sagemaker, url, **members: Any) -> str:
    return sagemaker.call("CreateModelPackage", package(url, **members))["ModelPackageArn"]


def test_packages_of_a_group_are_numbered_versions(sagemaker, url):
    assert [create(sagemaker, url) for _ in range(2)] == [f"{ARN}:model-package/kelp/{n}" for n in (1, 2)]
    described = sagemaker.call("DescribeModelPackage", {"ModelPackageName": f"{ARN}:model-package/kelp/2"})
    assert described["ModelPackageVersion"] == 2
    assert described["ModelPackageGroupName"] == "kelp"
    assert described["ModelPackageStatus"] == "Completed"
    assert described["ModelApprovalStatus"] == "PendingManualApproval"
    assert described["CustomerMetadataProperties"] == {"data_digest": "d1", "accuracy": "0.9"}
    assert described["ModelMetrics"]["ModelQuality"]["Statistics"]["S3Uri"] == "s3://the-bucket/e.json"
    assert described["InferenceSpecification"]["Containers"][0]["ModelDataUrl"] == url
    sagemaker.call("DeleteModelPackage", {"ModelPackageName": f"{ARN}:model-package/kelp/2"})
    assert create(sagemaker, url) == f"{ARN}:model-package/kelp/3"


def test_the_same_client_token_makes_one_version(sagemaker, url):
    assert create(sagemaker, url, ClientToken="run-1") == create(sagemaker, url, ClientToken="run-1")
    assert create(sagemaker, url, ClientToken="run-2") == f"{ARN}:model-package/kelp/2"


def test_versions_are_approved_and_their_metadata_changed(sagemaker, outside, url):
    arn = create(sagemaker, url)
    sagemaker.call(
        "UpdateModelPackage",
        {
            "ModelPackageArn": arn,
            "ModelApprovalStatus": "Approved",
            "ApprovalDescription": "better",
            "CustomerMetadataProperties": {"endpoint": "kelp"},
            "CustomerMetadataPropertiesToRemove": ["accuracy"],
        },
    )
    described = sagemaker.call("DescribeModelPackage", {"ModelPackageName": arn})
    assert described["ModelApprovalStatus"] == "Approved"
    assert described["ApprovalDescription"] == "better"
    assert described["CustomerMetadataProperties"] == {"data_digest": "d1", "endpoint": "kelp"}
    assert described["LastModifiedTime"] > described["CreationTime"]
    created, updated = [detail for kind, detail, _ in outside.events if kind == "SageMaker Model Package State Change"]
    assert (created["ModelApprovalStatus"], updated["ModelApprovalStatus"]) == ("PendingManualApproval", "Approved")
    assert "ModelApprovalStatus" in updated["UpdatedModelPackageFields"]
    assert updated["CreationTime"] == int(described["CreationTime"].timestamp() * 1000)


def test_packages_are_listed_by_group_kind_and_approval(sagemaker, url):
    for status in ("Approved", "Rejected"):
        create(sagemaker, url, ModelApprovalStatus=status)
    alone = package(url, ModelPackageName="alone")
    del alone["ModelPackageGroupName"]
    sagemaker.call("CreateModelPackage", alone)

    def listed(**parameters: Any) -> list[str]:
        found = sagemaker.call("ListModelPackages", parameters)["ModelPackageSummaryList"]
        return [summary["ModelPackageArn"].rpartition("model-package/")[2] for summary in found]

    assert listed() == ["alone"]
    assert listed(ModelPackageGroupName="kelp") == ["kelp/1", "kelp/2"]
    assert listed(ModelPackageGroupName="kelp", SortOrder="Descending", MaxResults=1) == ["kelp/2"]
    assert listed(ModelPackageGroupName="kelp", ModelApprovalStatus="Approved") == ["kelp/1"]
    assert sorted(listed(ModelPackageType="Both")) == ["alone", "kelp/1", "kelp/2"]
    groups = sagemaker.call("ListModelPackageGroups", {"NameContains": "kel"})["ModelPackageGroupSummaryList"]
    assert [summary["ModelPackageGroupName"] for summary in groups] == ["kelp"]


def test_a_group_is_deleted_when_it_is_empty(sagemaker, url):
    arn = create(sagemaker, url)
    with pytest.raises(ServiceError, match="still contains Model Packages") as caught:
        sagemaker.call("DeleteModelPackageGroup", {"ModelPackageGroupName": "kelp"})
    assert caught.value.code == "ConflictException"
    sagemaker.call("DeleteModelPackage", {"ModelPackageName": arn})
    sagemaker.call("DeleteModelPackageGroup", {"ModelPackageGroupName": "kelp"})
    with pytest.raises(ServiceError, match=r"model-package-group/kelp does not exist"):
        sagemaker.call("DescribeModelPackageGroup", {"ModelPackageGroupName": "kelp"})


@pytest.mark.parametrize("member", ["PrimaryContainer", "Containers"])
def test_a_model_takes_its_container_from_an_approved_package(sagemaker, url, member):
    arn = create(sagemaker, url)
    container = {"ModelPackageName": arn, "Environment": {"B": "model"}}
    model = {
        "ModelName": "kelp",
        member: container if member == "PrimaryContainer" else [container],
        "ExecutionRoleArn": ROLE,
    }
    with pytest.raises(ServiceError, match="ModelApprovalStatus is PendingManualApproval, and must be Approved"):
        sagemaker.call("CreateModel", model)
    sagemaker.call("UpdateModelPackage", {"ModelPackageArn": arn, "ModelApprovalStatus": "Approved"})
    sagemaker.call("CreateModel", model)
    sagemaker.call("DeleteModelPackage", {"ModelPackageName": arn})

    described = sagemaker.call("DescribeModel", {"ModelName": "kelp"})
    shown = described[member] if member == "PrimaryContainer" else described[member][0]
    assert shown["ModelPackageName"] == arn
    served = sagemaker.models.get("kelp")["Container"]
    assert (served["Image"], served["ModelDataUrl"]) == (IMAGE, url)
    assert served["Environment"] == {"A": "package", "B": "model"}


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"ModelPackageName": "alone"}, "Both ModelPackageName and ModelPackageGroupName are provided"),
        ({"ModelPackageGroupName": None}, r"Missing ARN\."),
        ({"ModelPackageGroupName": "weed"}, "model-package-group/weed does not exist"),
        ({"CertifyForMarketplace": True}, "CertifyForMarketplace=true is not supported"),
        ({"SourceAlgorithmSpecification": {"SourceAlgorithms": [{"AlgorithmName": "a"}]}}, "SourceAlgorithmSpec"),
        ({"ModelCard": {"ModelCardContent": "{}", "ModelCardStatus": "Draft"}}, "ModelCard.ModelCardContent"),
    ],
)
def test_packages_that_cannot_be_registered_are_refused(sagemaker, url, members, message):
    with pytest.raises(ServiceError, match=message):
        create(sagemaker, url, **members)
    assert sagemaker.call("ListModelPackages", {"ModelPackageType": "Both"})["ModelPackageSummaryList"] == []
