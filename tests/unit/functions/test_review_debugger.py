import pytest


@pytest.fixture
def app(load):
    return load("review_debugger")


def finding(rule, status, message="What it means."):
    return {"rule": rule, "status": status, "step": 40, "tensor": None, "values": {}, "message": message}


def findings(*entries):
    return {
        "version": 1,
        "job": "train-1",
        "steps": 1,
        "tensors_saved": 1,
        "tensors": "smdebug",
        "findings": list(entries),
    }


def test_the_review_is_left_in_s3(app, event, context, put, get, plan, example):
    put(f"{plan['locations']['train_checkpoints']}findings.json", example("findings"))
    review = app.handler(event, context)
    assert review["verdict"] == "stop"
    assert "The loss became NaN at step 40" in review["reason"]
    assert get(f"s3://{plan['bucket']}/{plan['prefix']}/debugger_review.json") == review


def test_findings_that_are_missing_are_an_error(app, event, context):
    with pytest.raises(app.documents.DocumentMissing, match=r"findings\.json"):
        app.handler(event, context)


@pytest.mark.parametrize(
    ("entries", "wanted", "verdict", "said"),
    [
        ([finding("Hooks", "NoIssuesFound")], True, "accept", "1 rules ran and found no issue"),
        ([finding("Overfit", "IssuesFound", "It learns by heart.")], True, "accept", "It learns by heart."),
        ([finding("Hooks", "Error", "Nothing was written.")], True, "accept", "Nothing was written."),
        ([finding("ExplodingTensor", "Error", "No tensors.")], True, "accept", "warnings"),
        ([finding("ExplodingTensor", "IssuesFound", "NaN.")], True, "stop", "NaN."),
        (
            [finding("Hooks", "NoIssuesFound"), finding("ExplodingTensor", "IssuesFound")],
            True,
            "stop",
            "ExplodingTensor",
        ),
        ([], False, "accept", "The debugger was off."),
        ([], True, "accept", "left no finding, though it was on"),
    ],
)
def test_what_makes_a_training_worthless_stops_it_and_the_rest_is_told(app, entries, wanted, verdict, said):
    review = app.review(findings(*entries), hooks_wanted=wanted)
    assert review["verdict"] == verdict
    assert said in review["reason"]
    assert review["findings"] == entries
