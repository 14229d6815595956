"""Hooks: what they leave, and who can read it."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import debugger
import debugging
import hooks
import numpy as np
import pytest
import torch
from debugger import FolderTrial, create_trial, modes
from history import Training
from observations import reduce
from review_tensors import TensorsMissing, review_tensors
from rules.review import Review
from small_trainings import Pictures, configure_hook, issues, make_head, make_network, run, statuses, told, train, zero
from torch import nn


def test_the_time_that_hooks_take_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def save(*_: Any) -> None:
        nonlocal now
        now += 1

    monkeypatch.setattr(hooks.Hooks, "_save", save)
    monkeypatch.setattr(hooks.time, "perf_counter", lambda: now)
    network, loss = make_network(), nn.CrossEntropyLoss()
    watched = hooks.Hooks(tmp_path, 1, None)
    watched.start(network, loss, range(1), 0, 10)
    loss(network(torch.zeros(4, 3, 8, 8)), torch.zeros(4, dtype=torch.int64)).backward()
    watched.before_update()
    watched.after_update()
    watched.step(1.0, 1.0, 0.5, 0.1)
    assert watched.trouble is None
    assert watched.seconds == now > 3


def test_others_readers_find_everything_that_is_hooked(tmp_path: Path) -> None:
    document = run(tmp_path, epochs=4)
    trial = create_trial(str(tmp_path / document["tensors"]))
    loss = trial.tensor("CrossEntropyLoss_output_0")
    assert len(loss.steps(mode=modes.TRAIN)) == 40
    assert len(loss.steps(mode=modes.EVAL)) == 4
    weight = trial.tensor("Sequential_4.weight")
    assert weight.steps(mode=modes.TRAIN) == list(range(0, 80, 10))
    expected = make_network()[4].weight
    assert weight.reduction_value(0, "max", mode=modes.TRAIN) == pytest.approx(expected.max().item())
    assert weight.reduction_value(0, "variance", mode=modes.TRAIN) == pytest.approx(
        expected.var(correction=0).item(), rel=1e-4
    )
    gradient = trial.tensor("gradient/Sequential_4.weight")
    largest = max(abs(gradient.reduction_value(20, one, mode=modes.TRAIN)) for one in ("min", "max"))
    assert 0 < gradient.reduction_value(20, "mean", mode=modes.TRAIN, abs=True) < largest
    for collection, name in {
        "gradients": "gradient/Sequential_0.weight",
        "updates": "update/Sequential_6.bias",
        "activations": "2_ReLU_output_0",
        "activity": "5_ReLU_0_activity",
        "scalars": "scalar/learning_rate",
        "inputs": "inputs/label_counts",
    }.items():
        assert name in trial.tensor_names(collection=collection)
    update = trial.tensor("update/Sequential_4.weight")
    assert 0 < update.reduction_value(20, "l2", mode=modes.TRAIN) < 1
    assert trial.tensor("5_ReLU_0_activity").value(0, mode=modes.TRAIN).shape == (32,)
    assert (document["steps"], document["tensors_saved"], document["stopped"]) == (80, len(trial.tensor_names()), None)


@pytest.mark.parametrize("head_epochs", [0, 2])
@pytest.mark.parametrize("save_interval_steps", [0, 9])
def test_rules_say_the_same_live_and_of_the_folder(tmp_path: Path, head_epochs: int, save_interval_steps: int) -> None:
    document = run(tmp_path, epochs=3, head_epochs=head_epochs, save_interval_steps=save_interval_steps)
    saved = {"job": "review_tensors.py", "tensors": str(tmp_path / "smdebug")}
    reviewed = review_tensors(tmp_path / document["tensors"], {})
    live, of_the_folder = told(document, "StalledTrainingRule"), told(reviewed, "StalledTrainingRule")
    assert of_the_folder["message"] == "Judged live only: a folder does not tell how long steps took."
    live["message"] = of_the_folder["message"]
    assert reviewed == {**document, **saved}
    assert document["steps"] == 20 * (head_epochs + 3)
    names = create_trial(str(tmp_path / "smdebug")).tensor_names(collection="activations")
    assert "4_Linear_output_0" in names
    assert ("3_Linear_output_0" in names) == bool(head_epochs)


def test_each_network_is_judged_for_itself(tmp_path: Path) -> None:
    document = run(tmp_path, Pictures(), network=zero(make_network()), head_epochs=4)
    zeros = told(document, "AllZero")
    assert (zeros["status"], zeros["step"]) == ("IssuesFound", 90)
    assert zeros["message"].startswith("In phase 2: Sequential_0.weight is all zero")
    assert told(document, "ExplodingTensor")["message"] == "No tensor holds NaN or an infinity."  # in neither


def test_an_issue_of_the_first_network_stays(tmp_path: Path) -> None:
    watched, training = debugging.start_debugging(True, [tmp_path], 10), Training()
    for network in (zero(make_head()), make_network()):
        train(watched, network, Pictures(), training=training)
    watched.write_findings()
    found = told(json.loads((tmp_path / "findings.json").read_text()), "LossNotDecreasing")
    assert (found["status"], found["message"][:11]) == ("IssuesFound", "In phase 1:")


def test_steps_are_those_of_the_whole_training(tmp_path: Path) -> None:
    stamped = Pictures()
    stamped.valid_pictures[:, 0, 0, 0] = stamped.valid_labels.float()
    leaks = told(run(tmp_path / "leaking", stamped, head_epochs=2), "LeakingLabels")
    assert (leaks["step"], leaks["message"][:11]) == (59, "In phase 2:")
    infinite = run(tmp_path / "infinite", learning_rate=1e38, head_epochs=2, save_interval_steps=1000)
    assert infinite["stopped"]["step"] == told(infinite, "ExplodingTensor")["step"] == infinite["steps"] - 1 >= 40


def test_a_training_that_goes_on_from_a_checkpoint_is_judged_by_what_it_still_does(tmp_path: Path) -> None:
    watched = hooks.Hooks(tmp_path, 0, None)
    review, network, loss = Review(watched.trial, {}), make_network(), nn.CrossEntropyLoss()
    watched.start(network, loss, range(100, 200), 60, 10)
    for _ in range(40):
        loss(network(torch.zeros(4, 3, 8, 8)), torch.zeros(4, dtype=torch.int64)).backward()
        watched.before_update()
        watched.after_update()
        saved = watched.step(1.0, 1.0, 0.5, 0.1)
        assert saved is None or not review.invoke(saved)
    assert (watched.trial.current.step, watched.steps) == (199, 200)
    findings = {found["rule"]: found for found in review.conclude()}
    for rule in ("LossNotDecreasing", "PoorWeightInitialization"):
        assert "first steps were not seen" in findings[rule]["message"]


def test_rules_that_saw_nothing_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configure_hook(tmp_path, monkeypatch, {"CollectionConfigurations": [{"CollectionName": "losses"}]})
    findings = run(tmp_path / "output", epochs=1)["findings"]
    saw_nothing = {one["rule"] for one in findings if one["message"].startswith("Saw no ")}
    sighted = {"Hooks", "ExplodingTensor", "LossNotDecreasing", "Overfit", "Overtraining", "StalledTrainingRule"}
    assert saw_nothing == {one["rule"] for one in findings} - sighted


def test_a_folder_without_tensors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TensorsMissing, match="has no collections"):
        review_tensors(tmp_path, {})


@pytest.mark.parametrize(("epochs", "every"), [(4, 4), (1, 1)])
def test_every_tensor_is_saved_as_often_in_a_long_training_as_in_a_short_one(
    tmp_path: Path, epochs: int, every: int
) -> None:
    run(tmp_path, epochs=epochs, save_interval_steps=0)
    trial = create_trial(str(tmp_path / "smdebug"))
    for name in (
        "Sequential_4.weight",
        "gradient/Sequential_4.weight",
        "update/Sequential_4.weight",
        "2_ReLU_output_0",
    ):
        assert trial.tensor(name).steps(mode=modes.TRAIN) == list(range(0, 20 * epochs, every))


TENSORS = {
    "usual": torch.randn(8, 4, 3, 3),
    "channels last": torch.randn(8, 4, 3, 3).to(memory_format=torch.channels_last),
    "part of another": torch.randn(8, 6)[:, ::2],
    "far from zero": 1e4 + torch.randn(100, 10),
    "constant": torch.full((5, 7), 0.1),
    "large": torch.randn(50) * 1e19,
    "many": torch.randn(300, 500),
    "one": torch.tensor(3.0),
}


@pytest.mark.parametrize("name", TENSORS)
def test_reductions_are_those_of_the_tensor(name: str) -> None:
    exact, reduced = TENSORS[name].double(), reduce(TENSORS[name])
    expected = (exact.min(), exact.max(), exact.mean(), exact.abs().mean(), exact.var(correction=0), exact.norm())
    found = (reduced.minimum, reduced.maximum, reduced.mean, reduced.absolute_mean, reduced.variance, reduced.l2)
    smallest = 1e-6 * float(exact.abs().max())
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(float(other), rel=1e-3, abs=smallest)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_bad_number_comes_through_reductions(bad: float) -> None:
    values = torch.randn(100)
    values[7] = bad
    reduced = reduce(values)
    assert not all(np.isfinite([reduced.minimum, reduced.maximum]))


def test_curves_are_kept_to_be_drawn(tmp_path: Path) -> None:
    document = run(tmp_path, epochs=4)
    curves = {(curve["name"], curve["mode"]): curve for curve in document["curves"]}
    assert curves["loss", "train"]["values"][-1] < curves["loss", "train"]["values"][0]
    assert curves["accuracy", "eval"]["steps"] == [19, 39, 59, 79]
    assert curves["learning_rate", "train"]["values"][0] < max(curves["learning_rate", "train"]["values"])
    norms = document["gradient_norms"]
    assert norms["steps"] == list(range(0, 80, 10))
    assert [layer["name"] for layer in norms["layers"]] == ["0.weight", "1.weight", "4.weight", "6.weight"]


def test_tensorboard_events_are_written_by_mode(tmp_path: Path) -> None:
    run(tmp_path, epochs=2)
    files = {path.parent.name: path.stat().st_size for path in (tmp_path / "tensorboard").rglob("*.tfevents")}
    assert set(files) == {"TRAIN", "EVAL"}
    assert files["TRAIN"] > files["EVAL"] > 0


def test_a_hopeless_training_is_stopped_early(tmp_path: Path) -> None:
    pictures = Pictures()
    pictures.images[:] = float("nan")
    with_rule = run(tmp_path, pictures, stopping=("ExplodingTensor",))
    assert with_rule["stopped"]["rule"] == "ExplodingTensor"
    assert with_rule["steps"] == 1
    assert told(with_rule, "ExplodingTensor")["message"] == with_rule["stopped"]["message"]


def test_a_loss_that_never_falls_stops_at_half_time(tmp_path: Path) -> None:
    pictures = Pictures(train=32)
    document = run(tmp_path, pictures, learning_rate=1e-12, epochs=160, stopping=("LossNotDecreasing",))
    assert document["stopped"]["rule"] == "LossNotDecreasing"
    assert 80 <= document["steps"] <= 82


def test_a_loss_that_explodes_between_saves_is_a_finding(tmp_path: Path) -> None:
    pictures = Pictures()
    pictures.labels = pictures.labels.clone()
    document = run(tmp_path, pictures, learning_rate=1e38, save_interval_steps=1000)
    assert document["stopped"]["rule"] == "ExplodingTensor"
    assert told(document, "ExplodingTensor")["status"] == "IssuesFound"


def test_reduced_precision_is_hooked_too(tmp_path: Path) -> None:
    class Halved(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = make_network()

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return self.inner(images).float()

    assert issues(run(tmp_path, network=Halved())) == set()


def test_weights_may_be_bfloat16() -> None:
    reduced = reduce(torch.full((4, 4), 2.0, dtype=torch.bfloat16))
    assert (reduced.maximum, reduced.l2, reduced.dimensions) == (2.0, 8.0, 2)
    assert debugger.Hook._make_numpy_array(torch.ones(2, dtype=torch.bfloat16)).dtype == np.float32


def test_a_second_network_is_hooked_in_the_first_ones_place(tmp_path: Path) -> None:
    watched, training = debugging.start_debugging(True, [tmp_path], 10), Training()
    for network in (nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), make_network()):
        train(watched, network, Pictures(), epochs=1, training=training)
    watched.write_findings()
    trial = create_trial(str(tmp_path / "smdebug"))
    assert trial.tensor("Sequential_1.weight").steps(mode=modes.TRAIN)
    assert max(trial.tensor("gradient/Sequential_6.weight").steps(mode=modes.TRAIN)) == 30


def test_sagemakers_own_configuration_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collections = [{"CollectionName": "losses"}, {"CollectionName": "gradients"}]
    configuration = {"HookParameters": {"save_interval": "6"}, "CollectionConfigurations": collections}
    configure_hook(tmp_path, monkeypatch, configuration)
    document = run(tmp_path / "output", epochs=1)
    assert document["tensors"] == str(tmp_path / "tensors")
    assert set(statuses(document).values()) == {"NoIssuesFound"}
    trial = create_trial(str(tmp_path / "tensors"))
    assert trial.tensor("CrossEntropyLoss_output_0").steps(mode=modes.TRAIN) == [0, 6, 12, 18]
    assert trial.tensor("gradient/Sequential_4.weight").value(6, mode=modes.TRAIN).shape == (32, 288)
    assert len(FolderTrial(tmp_path / "tensors").at(6).reduced("gradients")) == 8


def test_reductions_without_shapes_are_judged_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reduced = {"reductions": "min,max,mean,variance,l2_norm"}
    collections = [{"CollectionName": name, "CollectionParameters": reduced} for name in ("weights", "biases")]
    configure_hook(tmp_path, monkeypatch, {"CollectionConfigurations": collections})
    live = run(tmp_path / "output", network=zero(make_network()), epochs=1)
    assert statuses(live)["AllZero"] == "IssuesFound"
    assert statuses(review_tensors(tmp_path / "tensors", {})) == statuses(live)


@pytest.mark.parametrize(("learning_rate", "fires"), [(1e-3, set()), (100, {"WeightUpdateRatio"})])
def test_what_planrun_asks_of_sagemakers_debugger_is_what_the_default_saves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, learning_rate: float, fires: set[str]
) -> None:
    monkeypatch.setenv("TRAINING_JOB_NAME", "train-1")
    default = run(tmp_path / "default", epochs=4, save_interval_steps=0, learning_rate=learning_rate)
    (tmp_path / "config").mkdir()
    job_requests = runpy.run_path(str(Path(__file__).parents[3] / "functions/plan_run/job_requests.py"))
    request = job_requests["_managed_debugger"]("rules:1", "s3://bucket/managed-debugger")
    for member, file in (
        ("DebugHookConfig", "debughookconfig"),
        ("TensorBoardOutputConfig", "tensorboardoutputconfig"),
    ):
        configuration = {"LocalPath": str(tmp_path / member), **request[member]}
        (tmp_path / "config" / f"{file}.json").write_text(json.dumps(configuration))
    monkeypatch.setenv("SM_INPUT_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("TENSORBOARD_CONFIG_FILE_PATH", str(tmp_path / "config/tensorboardoutputconfig.json"))
    managed = run(tmp_path / "managed", epochs=4, save_interval_steps=0, learning_rate=learning_rate)

    assert managed == {**default, "tensors": str(tmp_path / "DebugHookConfig")}
    assert fires <= issues(managed)
    own, theirs = (create_trial(str(path)) for path in (tmp_path / "default/smdebug", tmp_path / "DebugHookConfig"))
    assert own.steps() == theirs.steps()
    for collection in ("losses", "scalars", "inputs", "activity", *debugger.REDUCED):
        for step in own.steps():
            names = own.tensor_names(step=step, collection=collection)
            assert names == theirs.tensor_names(step=step, collection=collection)
    saved = [FolderTrial(path) for path in (tmp_path / "default/smdebug", tmp_path / "DebugHookConfig")]
    for step in own.steps():
        assert saved[0].at(step).reductions == saved[1].at(step).reductions
    for folder in ("default/tensorboard", "TensorBoardOutputConfig"):
        assert sorted(path.parent.name for path in (tmp_path / folder).rglob("*.tfevents")) == ["EVAL", "TRAIN"]


def test_a_second_run_gets_a_folder_of_its_own(tmp_path: Path) -> None:
    assert [run(tmp_path, epochs=1)["tensors"] for _ in range(2)] == ["smdebug", "smdebug-2"]
