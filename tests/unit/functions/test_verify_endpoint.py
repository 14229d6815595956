import hashlib
import io
import json

import pytest
from botocore.exceptions import ClientError

WEIGHTS = "0" * 64
MODEL_DATA = "s3://kelpie-123456789012-eu-west-1/runs/3f2a9c0d1e4b/jobs/t/output/model.tar.gz"
PACKAGE = "arn:aws:sagemaker:eu-west-1:123456789012:model-package/kelpie-0123456789ab/1"


@pytest.fixture
def app(load):
    return load("verify_endpoint")


@pytest.fixture
def evaluation(example, plan, put, s3):
    evaluation = example("evaluation")
    image = b"\x89PNG\r\n\x1a\n"
    evaluation["samples"] = [
        {
            "path": f"test/001.Affenpinscher/{number}.png",
            "file": f"samples/000{number}.png",
            "drawn": False,
            "sha256": hashlib.sha256(image).hexdigest(),
            "label": "001.Affenpinscher",
            "predicted": "001.Affenpinscher",
            "probability": 0.93,
        }
        for number in range(3)
    ]
    golden = evaluation["samples"][0]
    for number in range(3, 13):
        name = f"test/001.Affenpinscher/other {number}.png"
        evaluation["samples"].append(golden | {"path": name, "file": f"samples/{number:04}.png", "drawn": True})
    for sample in evaluation["samples"]:
        s3.put_object(Bucket=plan["bucket"], Key=key_of(plan, sample), Body=image)
    put(plan["locations"]["evaluation"], evaluation)
    put(f"s3://{plan['bucket']}/endpoints/kelpie/lock.json", example("lock") | {"owner": plan["execution_arn"]})
    return evaluation


def key_of(plan, sample):
    evaluation_key = plan["locations"]["evaluation"].removeprefix(f"s3://{plan['bucket']}/")
    return f"{evaluation_key.rpartition('/')[0]}/{sample['file']}"


class Endpoint:
    """The endpoint, control plane and runtime."""

    def __init__(self, config, predictions, weights=WEIGHTS, status="InService", error=None, variant=None):
        self.description = {"EndpointStatus": status, "EndpointConfigName": config}
        self.body = {"predictions": predictions, "model": {"run_id": None, "weights_sha256": weights}}
        self.error = error
        self.headers = {"CustomAttributes": f"variant={variant}"} if variant else {}

    def describe_endpoint(self, EndpointName):  # noqa: N803 - AWS's name
        assert EndpointName
        return self.description

    def invoke_endpoint(self, EndpointName, ContentType, Accept, Body):  # noqa: N803 - AWS's names
        assert (EndpointName, ContentType, Accept, Body[:4]) == ("kelpie", "image/png", "application/json", b"\x89PNG")
        if self.error:
            raise self.error
        return {"Body": io.BytesIO(json.dumps(self.body).encode()), **self.headers}


@pytest.fixture
def verify(app, event, context, monkeypatch, s3, evaluation):  # noqa: ARG001 - the evaluation is there
    def verify(endpoint):
        clients = {"s3": s3, "sagemaker": endpoint, "sagemaker-runtime": endpoint}
        monkeypatch.setattr(app, "client", clients.__getitem__)
        return app.handler({**event, "model_data": MODEL_DATA, "model_package_arn": PACKAGE}, context)

    return verify


@pytest.fixture
def champion(s3, plan, get):
    def champion():
        uri = f"s3://{plan['bucket']}/endpoints/kelpie/champion.json"
        try:
            return get(uri)
        except s3.exceptions.NoSuchKey:
            return None

    return champion


def answers(*pairs):
    return [{"label": label, "probability": probability} for label, probability in pairs]


RIGHT = answers(("001.Affenpinscher", 0.9302), ("002.Afghan_hound", 0.0698))


def test_right_answers_move_the_champion(verify, plan, champion, get):
    verification = verify(Endpoint(plan["names"]["endpoint_config"], RIGHT))
    assert verification["verified"] is True
    chosen = [answer["chosen"] for answer in verification["answers"]]
    assert (chosen.count("golden"), chosen.count("sampled")) == (3, 8)
    assert len({answer["path"] for answer in verification["answers"]}) == 11
    assert 0 <= verification["latency_milliseconds"]["median"] <= verification["latency_milliseconds"]["slowest"]
    assert get(f"s3://{plan['bucket']}/{plan['prefix']}/verification.json") == verification
    moved = champion()
    assert moved["endpoint_config"] == plan["names"]["endpoint_config"]
    assert moved["model_data"] == MODEL_DATA
    assert moved["run_id"] == plan["run_id"]


def test_a_call_whose_reply_was_lost_is_answered_again_whatever_the_endpoint_answers_now(verify, plan, champion):
    config = plan["names"]["endpoint_config"]
    first = verify(Endpoint(config, RIGHT))
    moved = champion()
    assert verify(Endpoint(config, answers(("002.Afghan_hound", 1.0)))) == first
    assert champion() == moved


def test_a_champion_that_has_given_its_lock_back_is_one_still(verify, plan, put, example):
    """The run was stopped once the champion had moved, cleaned up after, and redriven."""
    endpoint = Endpoint(plan["names"]["endpoint_config"], RIGHT)
    first = verify(endpoint)
    put(f"s3://{plan['bucket']}/endpoints/kelpie/lock.json", example("lock") | {"owner": None})
    assert verify(endpoint) == first


def assert_refused(verify, champion, error, endpoint, *said):
    with pytest.raises(error) as caught:
        verify(endpoint)
    for part in said:
        assert part in str(caught.value)
    assert champion() is None


def test_another_configuration_is_refused(app, verify, champion):
    endpoint = Endpoint("former", RIGHT)
    assert_refused(verify, champion, app.EndpointConfigMismatch, endpoint, "InService on former")


@pytest.mark.parametrize("owner", [None, "arn:another"])
def test_a_run_that_lost_the_lock_does_not_become_champion(app, verify, champion, plan, put, example, owner):
    put(f"s3://{plan['bucket']}/endpoints/kelpie/lock.json", example("lock") | {"owner": owner})
    endpoint = Endpoint(plan["names"]["endpoint_config"], RIGHT)
    assert_refused(verify, champion, app.LockLost, endpoint, owner or "nobody")


def test_an_endpoint_that_is_not_in_service_is_refused(app, verify, champion, plan):
    endpoint = Endpoint(plan["names"]["endpoint_config"], RIGHT, status="Updating")
    assert_refused(verify, champion, app.EndpointConfigMismatch, endpoint, "is Updating")


@pytest.mark.parametrize(
    "given",
    [
        answers(("002.Afghan_hound", 0.93), ("001.Affenpinscher", 0.07)),
        answers(("001.Affenpinscher", 0.90), ("002.Afghan_hound", 0.10)),
        answers(("002.Afghan_hound", 1.0)),
    ],
)
def test_other_answers_are_refused(app, verify, champion, plan, given):
    endpoint = Endpoint(plan["names"]["endpoint_config"], given)
    assert_refused(verify, champion, app.EndpointAnswersDiffer, endpoint, "11 of 11 test images", "0.png")


def test_a_server_that_answers_slowly_is_refused_but_for_its_first_answer(app):
    app.check_latency({"median": 5000.0, "slowest": 9000.0, "most": 5000}, "kelpie")
    with pytest.raises(app.EndpointTooSlow, match="takes 5001 ms"):
        app.check_latency({"median": 5001.0, "slowest": 9000.0, "most": 5000}, "kelpie")


def test_a_server_that_knows_the_samples_by_heart_is_refused(verify, app, champion, plan, evaluation):
    endpoint = Endpoint(plan["names"]["endpoint_config"], RIGHT)
    answered = iter([RIGHT for sample in evaluation["samples"] if not sample["drawn"]])
    wrong = answers(("002.Afghan_hound", 0.93), ("001.Affenpinscher", 0.07))
    invoke = endpoint.invoke_endpoint

    def invoke_endpoint(**request):
        endpoint.body["predictions"] = next(answered, wrong)
        return invoke(**request)

    endpoint.invoke_endpoint = invoke_endpoint
    assert_refused(verify, champion, app.EndpointAnswersDiffer, endpoint, "8 of 11 test images")


def test_other_weights_are_refused_though_they_answer_the_same(app, verify, champion, plan):
    endpoint = Endpoint(plan["names"]["endpoint_config"], RIGHT, weights="f" * 64)
    assert_refused(verify, champion, app.EndpointAnswersDiffer, endpoint, "f" * 64)


def test_a_tie_may_fall_either_way(app):
    sample = {"path": "p", "chosen": "golden", "predicted": "a", "probability": 0.5001}
    body = {"predictions": answers(("b", 0.5002), ("a", 0.4998)), "model": {"run_id": None, "weights_sha256": WEIGHTS}}
    assert app.compare(sample, "float32", "float32", body, 1.0)["matches"] is True


INT8 = answers(("001.Affenpinscher", 0.88), ("002.Afghan_hound", 0.12))


@pytest.mark.parametrize(
    ("scored", "float32", "variant", "given", "verified"),
    [
        ("onnx-int8", 0.86, "onnx-int8", RIGHT, True),
        ("onnx-int8", 0.86, "onnx-int8", INT8, False),
        ("onnx-int8", 0.86, None, RIGHT, True),
        # an instance of the endpoint whose processor cannot run what was scored
        ("onnx-int8", 0.88, "float32", INT8, True),
        ("onnx-int8", 0.86, "float32", INT8, False),
        # a processor of the evaluation that could not run what serves
        ("float32", None, "onnx-int8", INT8, True),
        ("float32", None, "onnx-int8", answers(("001.Affenpinscher", 0.82)), False),
        ("float32", None, "onnx-int8", answers(("002.Afghan_hound", 0.93), ("001.Affenpinscher", 0.07)), False),
    ],
)
def test_each_variant_is_held_to_its_own_answers(
    verify, app, plan, put, evaluation, champion, scored, float32, variant, given, verified
):
    if float32:
        for sample in evaluation["samples"]:
            sample["float32"] = {"predicted": "001.Affenpinscher", "probability": float32}
    put(plan["locations"]["evaluation"], evaluation | {"variant": scored})
    endpoint = Endpoint(plan["names"]["endpoint_config"], given, variant=variant)
    if not verified:
        assert_refused(verify, champion, app.EndpointAnswersDiffer, endpoint, "11 of 11 test images")
        return
    assert {answer["variant"] for answer in verify(endpoint)["answers"]} == {variant or scored}
    assert champion() is not None


def test_a_model_error_is_a_wrong_answer(app, verify, champion, plan):
    response = {"Error": {"Code": "ModelError"}, "OriginalStatusCode": 500, "OriginalMessage": "boom"}
    endpoint = Endpoint(plan["names"]["endpoint_config"], RIGHT, error=ClientError(response, "InvokeEndpoint"))
    assert_refused(verify, champion, app.EndpointAnswersDiffer, endpoint, "status 500", "boom")


def test_a_test_image_that_changed_is_refused(app, verify, champion, plan, s3, evaluation):
    s3.put_object(Bucket=plan["bucket"], Key=key_of(plan, evaluation["samples"][1]), Body=b"\x89PNG other")
    endpoint = Endpoint(plan["names"]["endpoint_config"], RIGHT)
    assert_refused(verify, champion, app.SampleChanged, endpoint, "is not the image", "1.png")


def test_an_evaluation_without_samples_proves_nothing(app, verify, champion, plan, put, evaluation):
    put(plan["locations"]["evaluation"], evaluation | {"samples": []})
    endpoint = Endpoint(plan["names"]["endpoint_config"], RIGHT)
    assert_refused(verify, champion, app.NothingToVerify, endpoint, "no samples")
