"""Measuring a variant: its own answers, and figures that the contract of variants.json takes."""

import importlib
import json
import shutil
import time

import numpy as np
import pytest

FLOAT32 = {"variant": "float32", "engine": "torch", "precision": "float32", "file": None}


@pytest.fixture
def measure(inference, monkeypatch):
    assert inference  # whose modules it imports
    module = importlib.import_module("measure")
    monkeypatch.setattr(module, "TRIED_SECONDS", 0.01)
    monkeypatch.setattr(module, "LATENCIES", 2)
    return module


def test_a_measured_variant_leaves_its_logits_and_its_figures(measure, model, artifact, decoding, tiny, tmp_path):
    preprocessing = model.description["preprocessing"]
    images = np.stack([decoding.preprocess(tiny.encode(tiny.picture(seed=seed)), preprocessing) for seed in range(5)])
    np.save(tmp_path / "images.npy", images)
    (tmp_path / "variant.json").write_text(json.dumps(FLOAT32))
    given = (artifact, tmp_path / "variant.json", tmp_path / "images.npy", tmp_path / "measured.npz", time.time() - 1)

    measure.main([str(argument) for argument in given])

    with np.load(tmp_path / "measured.npz") as measured:
        logits, figures = measured["logits"], json.loads(str(measured["figures"]))
    np.testing.assert_allclose(logits, model.engine.logits(images), atol=1e-4)
    assert figures["size_bytes"] == (artifact / "model.safetensors").stat().st_size
    assert figures["start_seconds"] > 1
    assert figures["memory_mb"] > 50
    for name in ("latency_ms", "images_per_second", "core_ms"):
        assert figures[name] > 0
    assert figures["settings"]["batch_size"] in measure.BATCH_SIZES


def test_what_lets_others_wait_is_tried_last(measure):
    ways = [(cores.workers, cores.threads, batch) for cores, batch in measure._ways(4)]
    assert ways == [(4, 1, 1), (4, 1, 4), (1, 4, 1)]
    assert [(cores.workers, batch) for cores, batch in measure._ways(1)] == [(1, 1), (1, 4)]


@pytest.mark.parametrize(
    ("rates", "settings"),
    [
        ([100, 105, 108] * 3, {"threads": 1, "batch_size": 1}),
        ([100, 120, 125] * 3, {"threads": 1, "batch_size": 4}),
        ([100, 90, 150] * 3, {"threads": 2, "batch_size": 1}),
        ([100, 90, 150] + [100, 90, 90] * 2, {"threads": 1, "batch_size": 1}),  # one round that something disturbed
    ],
)
def test_a_way_that_lets_others_wait_must_be_worth_it(measure, artifact, monkeypatch, rates, settings):
    monkeypatch.setattr(measure, "available_cores", lambda: 2)
    given = iter(rates)
    monkeypatch.setattr(measure, "_throughput", lambda *_: (next(given), 7.0))
    size = json.loads((artifact / "model.json").read_text())["preprocessing"]["image_size_px"]
    images = np.zeros((2, 3, size, size), dtype=np.float32)
    assert measure.measure(artifact, FLOAT32, images, time.time())[1]["settings"] == settings


def test_a_variant_whose_file_is_not_there_fails_by_its_name(measure, artifact, tmp_path):
    folder = shutil.copytree(artifact, tmp_path / "artifact")
    missing = FLOAT32 | {"engine": "onnxruntime", "file": "variants/gone.onnx", "sha256": "0" * 64}
    with pytest.raises(Exception, match=r"variants/gone\.onnx"):
        measure.measure(folder, missing, np.zeros((1, 3, 32, 32), dtype=np.float32), time.time())
