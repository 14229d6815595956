import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

GATE = {"min_accuracy": 0, "min_macro_f1": 0, "min_class_recall": 0, "must_beat_majority": True}


@pytest.fixture
def app(load):
    return load("judge_evaluation")


@pytest.fixture
def evaluation(example):
    return example("evaluation") | {"accuracy": 0.9, "images": 400, "macro_f1": 0.88}


def test_the_verdict_is_left_in_s3(app, event, context, put, get, plan, evaluation):
    put(plan["locations"]["evaluation"], evaluation)
    verdict = app.handler(event, context)
    assert verdict["verdict"] == "accept"
    assert get(f"s3://{plan['bucket']}/{plan['prefix']}/verdict.json") == verdict


def test_an_evaluation_of_another_run_is_refused(app, event, context, put, plan, evaluation):
    put(plan["locations"]["evaluation"], evaluation | {"run_id": "0" * 12})
    with pytest.raises(app.EvaluationMismatch, match="000000000000"):
        app.handler(event, context)


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        ({"min_accuracy": 0.95}, "accuracy 0.9000 is below min_accuracy 0.95"),
        ({"min_macro_f1": 0.95}, "macro F1 0.8800 is below min_macro_f1 0.95"),
        (
            {"min_class_recall": 0.6},
            "worst class, 001.Affenpinscher, 0.5000 is below min_class_recall 0.6",
        ),
    ],
)
def test_a_threshold_that_is_missed_rejects_with_its_reason(app, evaluation, gate, said):
    verdict = app.judge(evaluation, GATE | gate)
    assert verdict["verdict"] == "reject"
    assert said in verdict["reason"]
    assert [check["passed"] for check in verdict["checks"]].count(False) == 1


def test_a_threshold_that_is_just_met_accepts(app, evaluation):
    gate = GATE | {"min_accuracy": 0.9, "min_macro_f1": 0.88, "min_class_recall": 0.5}
    assert app.judge(evaluation, gate)["verdict"] == "accept"


def test_every_reason_is_told(app, evaluation):
    reason = app.judge(evaluation, GATE | {"min_accuracy": 0.99, "min_macro_f1": 0.99})["reason"]
    assert "accuracy 0.9000" in reason
    assert "macro F1 0.8800" in reason


@pytest.mark.parametrize(
    ("accuracy", "images", "majority_share", "verdict"),
    [
        (0.75, 4, 0.5, "reject"),  # three of four right is no proof
        (0.75, 400, 0.5, "accept"),
        (0.5, 4000, 0.5, "reject"),
        (1.0, 4, 0.5, "accept"),
        (1.0, 3, 0.5, "reject"),
        (0.0, 10, 0.1, "reject"),
    ],
)
def test_a_model_must_be_better_than_always_saying_the_same(app, evaluation, accuracy, images, majority_share, verdict):
    evaluation |= {"accuracy": accuracy, "images": images, "majority_share": majority_share}
    judged = app.judge(evaluation, GATE)
    assert judged["verdict"] == verdict
    if verdict == "reject":
        assert "must_beat_majority" in judged["reason"]
    assert app.judge(evaluation, GATE | {"must_beat_majority": False})["verdict"] == "accept"


def test_a_class_without_images_in_the_split_is_not_the_worst(app, evaluation):
    evaluation["per_class"].append({"label": "none", "images": 0, "precision": 0.0, "recall": 0.0, "f1": 0.0})
    assert app.judge(evaluation, GATE | {"min_class_recall": 0.5})["verdict"] == "accept"


def test_the_lower_bound_is_wilsons(load):
    app = load("judge_evaluation")

    @given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
    def agrees_with_scipy(counts):
        right, images = counts
        expected = binomtest(right, images).proportion_ci(0.95, method="wilson").low
        assert app.wilson_lower_bound(right / images, images) == pytest.approx(expected, abs=1e-6)

    agrees_with_scipy()
