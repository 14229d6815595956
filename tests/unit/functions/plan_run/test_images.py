import pytest

REGISTRY = "1.dkr.ecr.eu-west-1.amazonaws.com"


@pytest.fixture
def images(load):
    load("plan_run")
    import images

    return images


@pytest.fixture
def training(images):
    return images.Images(f"{REGISTRY}/pytorch:2.14-cpu-amzn2023", f"{REGISTRY}/pytorch:2.14-cu133-amzn2023", "Training")


@pytest.fixture
def serving(images):
    return images.Images(f"{REGISTRY}/ray:serve-ml-cpu-v1.4", None, "Serving")


@pytest.mark.parametrize(
    ("instance_type", "tag"),
    [
        ("ml.m5.xlarge", "cpu"),
        ("ml.c7i.2xlarge", "cpu"),
        ("ml.m7g.large", "cpu"),
        ("ml.g4dn.xlarge", "cu133"),
        ("ml.g6e.12xlarge", "cu133"),
        ("ml.p3.2xlarge", "cu133"),
        ("ml.p5en.48xlarge", "cu133"),
    ],
)
def test_each_step_has_the_image_of_its_own_instance_type(images, training, serving, instance_type, tag):
    chosen = images.chosen({"train": instance_type, "evaluate": "ml.m5.large"}, training, serving)
    assert chosen == {
        "train": f"{REGISTRY}/pytorch:2.14-{tag}-amzn2023",
        "evaluate": f"{REGISTRY}/pytorch:2.14-cpu-amzn2023",
    }


def test_the_endpoint_has_the_serving_image(images, training, serving):
    assert images.chosen({"endpoint": "ml.c7i.large"}, training, serving) == {
        "endpoint": f"{REGISTRY}/ray:serve-ml-cpu-v1.4"
    }


@pytest.mark.parametrize("step", ["optimize", "evaluate", "endpoint"])
def test_no_gpu_is_paid_for_where_the_cpu_computes(images, training, serving, step):
    with pytest.raises(Exception, match="computes on CPUs") as caught:
        images.chosen({step: "ml.g5.xlarge"}, training, serving)
    assert type(caught.value).__name__ == "InvalidInput"
    assert f"instances.{step} 'ml.g5.xlarge'" in str(caught.value)


@pytest.mark.parametrize(
    ("instance_type", "tag", "said"),
    [
        (
            "ml.g5.xlarge",
            "pytorch:2.14-cpu-amzn2023",
            ["instances.train 'ml.g5.xlarge' has a GPU", "is for CPUs", "Own"],
        ),
        ("ml.m5.large", "pytorch:2.14-cu133-amzn2023", ["'ml.m5.large' has no GPU", "is for GPUs", "Own"]),
        ("ml.m5.large", "mine:1-gpu-py312", ["has no GPU", "is for GPUs"]),
        ("ml.inf2.xlarge", "pytorch:2.14-cpu-amzn2023", ["'ml.inf2.xlarge'", "compiled for Inferentia"]),
        ("ml.trn1.2xlarge", "pytorch:2.14-cpu-amzn2023", ["'ml.trn1.2xlarge'", "Trainium"]),
    ],
)
def test_an_image_that_does_not_fit_its_instance_is_refused(images, serving, instance_type, tag, said):
    own = images.Images(f"{REGISTRY}/{tag}", f"{REGISTRY}/{tag}", "Own")
    with pytest.raises(Exception) as caught:
        images.chosen({"train": instance_type}, own, serving)
    assert type(caught.value).__name__ == "InvalidInput"
    for part in said:
        assert part in str(caught.value)


def test_an_image_whose_tag_says_nothing_fits_any_instance(images, serving):
    own = images.Images("mine:latest", "mine:latest", "Own")
    assert images.chosen({"train": "ml.g5.xlarge", "tune": "ml.m5.large"}, own, serving) == {
        "train": "mine:latest",
        "tune": "mine:latest",
    }


def test_an_endpoint_of_arm_processors_needs_an_image_of_ones_own(images):
    aws = images.Images(f"{REGISTRY}/ray:serve-ml-sagemaker-cpu-v1.4", None, "ServingImageUri")
    with pytest.raises(Exception, match=r"'ml\.c7g\.large' has an ARM processor.* as ServingImageUri"):
        images.chosen({"endpoint": "ml.c7g.large"}, aws, aws)
    own = images.Images(f"{REGISTRY}/ray:mine-arm64", None, "ServingImageUri")
    assert images.chosen({"endpoint": "ml.c7g.large"}, own, own) == {"endpoint": own.cpu}
