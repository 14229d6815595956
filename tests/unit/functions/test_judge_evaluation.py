import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, multinomial

GATE = {
    "min_accuracy": 0,
    "min_macro_f1": 0,
    "min_class_recall": 0,
    "max_calibration_error": 1,
    "must_beat_majority": True,
    "max_regression": 0.05,
    "confidence": 0.95,
    "min_images": 100,
}


@pytest.fixture
def app(load):
    return load("judge_evaluation")


@pytest.fixture
def evaluation(example):
    return example("evaluation") | {"accuracy": 0.9, "images": 400, "macro_f1": 0.88, "calibration_error": 0.03}


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
        ({"max_calibration_error": 0.02}, "calibration error 0.0300 is above max_calibration_error 0.02"),
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


@pytest.fixture
def against(app, evaluation):
    """Judge a model against a champion that differs from it on so many images, of 400 unless said otherwise."""

    def against(wins, losses, gate=None, **members):
        champion = {"run_id": "a" * 12, "weights_sha256": "0" * 64, "same_classes": True, "images": 400, "left_out": 3}
        evaluation["champion"] = {**champion, "wins": wins, "losses": losses, **members}
        return app.judge(evaluation, GATE | (gate or {}))

    return against


@pytest.mark.parametrize(
    ("wins", "losses", "verdict"),
    [
        (0, 0, "accept"),  # equal
        (7, 7, "accept"),  # equal, in other images
        (0, 1, "accept"),  # one image of 400
        (30, 10, "accept"),
        (5, 15, "accept"),  # ten images, 2.5 points: at 95 % by no more than 4.25
        (30, 40, "reject"),  # ten images, but so many differ that it may be 6 points
        (0, 20, "reject"),
        (10, 40, "reject"),
    ],
)
def test_a_model_may_not_be_worse_than_the_champion_beyond_doubt(against, wins, losses, verdict):
    judged = against(wins, losses)
    assert judged["verdict"] == verdict
    assert judged["comparison"]["case"] == "compared"
    assert judged["comparison"]["difference"] == (wins - losses) / 400
    assert f"alone is right on {wins}, the champion alone on {losses}" in judged["reason"]
    assert "3 that the champion was trained on left out" in judged["reason"]


def test_how_much_worse_and_how_sure_is_the_runs_to_say(against):
    assert against(5, 15, {"max_regression": 0.02})["verdict"] == "reject"
    assert against(5, 15, {"max_regression": 0.043})["verdict"] == "accept"
    assert against(5, 15, {"max_regression": 0.043, "confidence": 0.999})["verdict"] == "reject"


@pytest.mark.parametrize(
    ("members", "case", "said"),
    [
        ({"same_classes": False}, "other_classes", "other classes"),
        ({"images": 99}, "too_few_images", "only 99 images"),
        ({"images": 0, "left_out": 400}, "too_few_images", "only 0 images (400 that"),
    ],
)
def test_what_cannot_be_compared_is_left_to_the_thresholds(against, members, case, said):
    judged = against(0, 0, **members)
    assert (judged["verdict"], judged["comparison"]["case"]) == ("accept", case)
    assert said in judged["reason"]
    assert against(0, 0, {"min_accuracy": 0.95}, **members)["verdict"] == "reject"


@pytest.mark.parametrize("champion", [{"champion": None}, {}])
def test_without_a_champion_the_thresholds_decide(app, evaluation, champion):
    judged = app.judge(evaluation | champion, GATE)
    assert (judged["verdict"], judged["comparison"]["case"]) == ("accept", "no_champion")


def test_mcnemars_test_is_the_binomial_one(load):
    app = load("judge_evaluation")

    @given(st.integers(0, 300), st.integers(0, 300))
    def agrees_with_scipy(wins, losses):
        expected = binomtest(wins, wins + losses, 0.5).pvalue if wins + losses else 1.0
        assert app.mcnemar_p_value(wins, losses) == pytest.approx(expected, rel=1e-6)

    agrees_with_scipy()


@pytest.mark.parametrize(
    ("wins", "losses", "images"), [(0, 1, 100), (5, 15, 400), (30, 40, 372), (200, 100, 5000), (40, 0, 40)]
)
def test_the_interval_is_that_of_many_samples_of_pairs(app, wins, losses, images):
    shares = [wins / images, losses / images, 1 - (wins + losses) / images]
    drawn = multinomial(images, shares, seed=1).rvs(100_000)
    expected = sorted((drawn[:, 0] - drawn[:, 1]) / images)[5_000]
    assert app.bootstrap_lower_bound(wins, losses, images, 0.95) == pytest.approx(expected, abs=1.01 / images)


def test_the_lower_bound_is_wilsons(load):
    app = load("judge_evaluation")

    @given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
    def agrees_with_scipy(counts):
        right, images = counts
        expected = binomtest(right, images).proportion_ci(0.95, method="wilson").low
        assert app.wilson_lower_bound(right / images, images) == pytest.approx(expected, abs=1e-6)

    agrees_with_scipy()
