"""Variants: which one serves where, how they are made, what they are judged by, and which is chosen."""

import hashlib
import importlib
import json
import shutil
import zipfile

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

FLOAT32_FILE, INT8_FILE = "variants/float32.onnx", "variants/int8.onnx"


@pytest.fixture(scope="module")
def optimize(inference):
    assert inference  # whose modules it imports
    return importlib.import_module("optimize")


@pytest.fixture(scope="module")
def choice(inference):
    assert inference
    return importlib.import_module("choice")


@pytest.fixture(scope="module")
def images(tiny, decoding, model):
    preprocessing = model.description["preprocessing"]
    return np.stack([decoding.preprocess(tiny.encode(tiny.picture(seed=seed)), preprocessing) for seed in range(8)])


@pytest.fixture(scope="module")
def exported(artifact, networks, model, tmp_path_factory):
    """A copy of the artifact with its graph in float32."""
    folder = shutil.copytree(artifact, tmp_path_factory.mktemp("exported") / "artifact")
    network = networks.load_network(model.description, (folder / "model.safetensors").read_bytes())
    size = model.description["preprocessing"]["image_size_px"]
    importlib.import_module("variants").export_float32(network, size, folder / FLOAT32_FILE)
    return folder


@pytest.fixture
def serve(exported, model, inference, tmp_path):
    """A function that makes an artifact serve a variant, and loads it."""

    def served(golden_logits=None, **changes):
        folder = shutil.copytree(exported, tmp_path / "served")
        serving = {
            "version": 1,
            "run_id": model.description["run_id"],
            "weights_sha256": model.description["weights_sha256"],
            "variant": "onnx-float32",
            "engine": "onnxruntime",
            "precision": "float32",
            "file": FLOAT32_FILE,
            "sha256": hashlib.sha256((folder / FLOAT32_FILE).read_bytes()).hexdigest(),
            "golden_logits": golden_logits or [example["logits"] for example in model.description["golden"]],
            "golden_tolerance": 0.001,
            "settings": {"threads": 1, "batch_size": 4},
        }
        (folder / "serving.json").write_text(json.dumps(serving | changes))
        return inference.verified_model(folder, None, None), folder

    return served


class TestWhatServes:
    def test_the_chosen_variant_answers_as_float32_does(self, serve, model, inference, tiny):
        served, folder = serve()
        assert served.serving["variant"] == "onnx-float32"
        pictures = [tiny.encode(tiny.picture(seed=seed)) for seed in range(3)]
        expected = inference.predict_logits(model, pictures)
        np.testing.assert_allclose(inference.predict_logits(served, pictures), expected, atol=1e-3)
        assert inference.serving_settings(folder) == {"threads": 1, "batch_size": 4}

    def test_float32_serves_where_the_processor_cannot_do_what_was_chosen(
        self, serve, inference, monkeypatch, capsys, tmp_path
    ):
        (tmp_path / "cpuinfo").write_text("model name\t: An old one\nflags\t\t: sse2 avx2\n")
        monkeypatch.setattr(inference.sys.modules["engines"], "CPUINFO", tmp_path / "cpuinfo")
        served, _ = serve(precision="int8", variant="onnx-int8")
        assert served.serving["variant"] == "float32"
        assert "serving float32 instead of onnx-int8: the processor has none of avx512_vnni" in capsys.readouterr().out

    def test_float32_serves_where_the_engine_is_not_installed(self, serve, inference, monkeypatch, capsys):
        find = inference.sys.modules["engines"].importlib.util.find_spec
        monkeypatch.setattr(
            "importlib.util.find_spec", lambda name, *given: None if name == "onnxruntime" else find(name, *given)
        )
        served, _ = serve()
        assert served.serving["variant"] == "float32"
        assert "onnxruntime is not installed" in capsys.readouterr().out

    def test_float32_serves_where_a_variant_answers_otherwise_than_where_it_was_made(self, serve, model, capsys):
        golden = [example["logits"] for example in model.description["golden"]]
        golden[1] = [logit + 0.5 for logit in golden[1]]
        served, _ = serve(golden_logits=golden)
        assert served.serving["variant"] == "float32"
        assert "is 0.5 off" in capsys.readouterr().out

    def test_float32_serves_where_the_engine_does_not_load(self, serve, inference, monkeypatch, capsys):
        monkeypatch.setitem(inference.sys.modules, "onnxruntime", None)  # an import of it fails
        monkeypatch.setattr("importlib.util.find_spec", lambda *_: True)
        served, _ = serve()
        assert served.serving["variant"] == "float32"
        assert "onnxruntime does not load it: ModuleNotFoundError" in capsys.readouterr().out

    def test_float32_serves_where_the_engine_loads_and_fails_at_its_first_answer(
        self, serve, inference, monkeypatch, capsys
    ):
        def fail(*_):
            raise RuntimeError("no such kernel")

        monkeypatch.setattr(inference.sys.modules["engines"].OnnxRuntimeEngine, "logits", fail)
        served, _ = serve()
        assert served.serving["variant"] == "float32"
        assert "serving float32 instead of onnx-float32: no such kernel" in capsys.readouterr().out

    def test_a_graph_that_is_not_the_one_that_was_chosen_is_refused(self, serve):
        with pytest.raises(Exception, match="has the SHA-256"):
            serve(sha256="0" * 64)

    def test_a_variant_of_other_weights_is_refused(self, serve):
        with pytest.raises(Exception, match="is of other weights than"):
            serve(weights_sha256="0" * 64)


class TestQuantising:
    def test_int8_answers_nearly_alike_and_leaves_the_layers_that_are_to_be_kept(
        self, exported, images, inference, model, tmp_path
    ):
        variants, engines = importlib.import_module("variants"), inference.sys.modules["engines"]
        float32 = tmp_path / FLOAT32_FILE
        float32.parent.mkdir()
        shutil.copy(exported / FLOAT32_FILE, float32)
        int8 = tmp_path / INT8_FILE

        variants.quantise(float32, int8, images, [])
        whole, digest = int8.stat().st_size, hashlib.sha256(int8.read_bytes()).hexdigest()
        engine = engines.OnnxRuntimeEngine(tmp_path, {}, {"file": INT8_FILE, "sha256": digest}, None)
        assert np.abs(engine.logits(images) - model.engine.logits(images)).mean() < 0.5
        ranking = variants.rank_sensitive_layers(float32, int8, images)
        assert ranking[0] != ranking[-1]
        variants.quantise(float32, int8, images, ranking)
        variants.discard_prepared(float32)
        assert whole < int8.stat().st_size
        assert sorted(path.name for path in int8.parent.iterdir()) == ["float32.onnx", "int8.onnx"]

    def test_sizes_that_a_network_computes_stay_exact(self, images, tmp_path):
        variants = importlib.import_module("variants")
        network = torch.nn.Sequential(PaddedAsNeeded(3, 8), torch.nn.ReLU6(), PaddedAsNeeded(8, 6), Pooled()).eval()
        float32, int8 = tmp_path / "float32.onnx", tmp_path / "int8.onnx"
        variants.export_float32(network, images.shape[-1], float32)
        variants.quantise(float32, int8, images, [])
        with torch.inference_mode():
            expected = network(torch.from_numpy(images)).numpy()
        answers = onnxruntime.InferenceSession(int8).run(None, {"images": images})[0]
        assert np.abs(answers - expected).max() < 0.05 * np.abs(expected).max()
        assert len(variants.rank_sensitive_layers(float32, int8, images)) == 2
        nodes = onnx.load(int8).graph.node
        in_8_bits = {node.output[0] for node in nodes if node.op_type == "DequantizeLinear"}
        of_sizes = [node for node in nodes if node.op_type in ("Ceil", "Sub", "Mul", "Div")]
        assert of_sizes
        assert not [node.name for node in of_sizes if in_8_bits.intersection(node.input)]


class TestImages:
    @pytest.fixture
    def decoded(self, optimize, artifact, model, tiny, tmp_path):
        """A function that decodes what is in a folder, by a manifest of three images."""
        contents = {f"{split}/ant/1.png": tiny.encode(tiny.picture(seed=seed)) for seed, split in enumerate("abc")}
        entries = [
            {
                "path": path,
                "split": "valid" if path.startswith("a/") else "train",
                "class_index": 0,
                "truncated": False,
                "sha256": hashlib.sha256(content).hexdigest(),
            }
            for path, content in contents.items()
        ]

        def decode(dataset):
            scored = optimize._decode(model.description, artifact, dataset, {"images": entries}, tmp_path)
            return np.load(scored.pixels), scored.calibration

        def fill(dataset):
            for path, content in contents.items():
                (dataset / path).parent.mkdir(parents=True)
                (dataset / path).write_bytes(content)

        def archive(dataset):
            with zipfile.ZipFile(dataset / "dogs.ZIP", "w") as packed:
                for path, content in contents.items():
                    packed.writestr(path, content)

        return decode, fill, archive

    def test_they_are_read_from_a_folder_and_from_an_archive(self, decoded, tmp_path):
        decode, fill, archive = decoded
        for name, write in (("folder", fill), ("archive", archive)):
            (tmp_path / name).mkdir()
            write(tmp_path / name)
        (tmp_path / "archive" / "._dogs.zip").write_bytes(b"left by a file manager")
        for one, other in zip(decode(tmp_path / "folder"), decode(tmp_path / "archive"), strict=True):
            np.testing.assert_array_equal(one, other)

    def test_an_archive_beside_images_is_none_of_them(self, decoded, tmp_path):
        decode, fill, _ = decoded
        fill(tmp_path / "dataset")
        with zipfile.ZipFile(tmp_path / "dataset" / "download.zip", "w") as packed:
            packed.writestr("readme.txt", "")
        assert len(decode(tmp_path / "dataset")[1]) == 2

    def test_an_archive_is_opened_once(self, decoded, tmp_path, monkeypatch):
        decode, _, archive = decoded
        archive(tmp_path)
        opened = []
        whole = zipfile.ZipFile

        def opening(path, *more):
            opened.append(path)
            return whole(path, *more)

        monkeypatch.setattr(zipfile, "ZipFile", opening)
        decode(tmp_path)
        assert len(opened) == 1


class TestBuilding:
    @pytest.fixture
    def built(self, optimize, model, monkeypatch, tmp_path):
        """A function that builds float32 and bfloat16, of which some cannot be measured."""
        scored = optimize.Scored(tmp_path / "pixels.npy", np.zeros(4, dtype=int), np.zeros((0, 3, 8, 8)))

        def build(*failing):
            def measure(_, __, name, *___):
                if name in failing:
                    raise RuntimeError(f"{name} was killed")
                return np.zeros((5, 6)), {"core_ms": 1.0}

            monkeypatch.setattr(optimize, "check_processor", lambda _: None)
            monkeypatch.setattr(optimize, "_measure", measure)
            return optimize._build_and_measure(tmp_path, model.description, scored, "bfloat16", 0.003, tmp_path)

        return build

    def test_one_that_fails_says_why_and_another_serves(self, built, choice):
        rows = built("bfloat16").rows
        assert [(row["variant"], row["accepted"]) for row in rows] == [("float32", True), ("bfloat16", False)]
        assert rows[1]["reason"] == "RuntimeError: bfloat16 was killed"
        assert choice.choose(rows, "fastest", 0.003)[0] == "float32"

    def test_nothing_serves_without_float32(self, built):
        with pytest.raises(RuntimeError, match="float32 was killed"):
            built("float32")

    def test_the_reason_is_one_line_and_the_log_has_the_rest(self, optimize, model, tmp_path, capsys):
        scored = optimize.Scored(tmp_path / "pixels.npy", np.zeros(0), np.zeros(0))
        with pytest.raises(optimize.ArtifactError, match=r"ended with 1: FileNotFoundError.*pixels\.npy") as raised:
            optimize._measure(tmp_path, model.description, "float32", scored, tmp_path)
        assert "\n" not in str(raised.value)
        assert "Traceback" in capsys.readouterr().err


class PaddedAsNeeded(torch.nn.Conv2d):
    """A convolution at stride 2 that pads as TensorFlow does, by arithmetic on the size that it meets."""

    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs, 3, stride=2)

    def forward(self, images):
        size = images.shape[-1]
        padding = ((torch.ceil(torch.as_tensor(size / 2)) - 1) * 2 + 3 - size).clamp(min=0)
        before = (padding / 2).to(torch.int64)
        after = (padding - before).to(torch.int64)
        return super().forward(torch.nn.functional.pad(images, [before, after, before, after]))


class Pooled(torch.nn.Module):
    def forward(self, images):
        return images.mean((2, 3))


class TestJudging:
    @pytest.mark.parametrize(("wins", "losses", "p"), [(0, 0, 1.0), (0, 5, 1 / 32), (5, 0, 1.0), (1, 1, 0.75)])
    def test_the_paired_test_is_exact(self, choice, wins, losses, p):
        assert choice.mcnemar(wins, losses) == pytest.approx(p)

    def test_wins_and_losses_are_counted_against_float32(self, choice):
        labels = np.array([0, 1, 1, 0])
        float32 = np.array([[2.0, 1.0], [1.0, 2.0], [2.0, 1.0], [2.0, 1.0]])  # right, right, wrong, right
        other = np.array([[2.0, 1.0], [2.0, 1.0], [1.0, 2.0], [2.0, 1.5]])  # right, wrong, right, right
        judged = choice.judge(other, float32, labels, 1.0)
        assert (judged["accuracy"], judged["wins"], judged["losses"]) == (0.75, 1, 1)
        assert (judged["agreement"], judged["largest_difference"]) == (0.5, 1.0)

    def test_confident_and_right_is_calibrated(self, choice):
        logits = np.array([[50.0, 0.0]] * 4)
        assert choice.calibration_error(logits, np.zeros(4, dtype=int)) == pytest.approx(0)
        assert choice.calibration_error(logits, np.ones(4, dtype=int)) == pytest.approx(1)

    @pytest.mark.parametrize(
        ("changes", "accepted", "said"),
        [
            ({}, True, "It may serve"),
            ({"loss": 0.004, "losses": 4}, False, "It loses 0.40 points of accuracy, at most 0.3 may be"),
            ({"losses": 9, "p_value": 0.002}, False, "significantly worse"),
            ({"agreement": 0.99}, False, "Too few labels are float32's"),
        ],
    )
    def test_a_variant_may_serve_if_it_loses_little_and_answers_alike(self, choice, changes, accepted, said):
        judged = {"loss": 0.001, "wins": 1, "losses": 2, "p_value": 0.5, "agreement": 0.998}
        answer, reason = choice.accept(judged | changes, 0.003)
        assert answer is accepted
        assert said in reason


class TestChoosing:
    ROWS = (
        {"variant": "float32", "accepted": True, "reason": "r", "measured": {"core_ms": 49.5}},
        {"variant": "onnx-int8", "accepted": True, "reason": "r", "measured": {"core_ms": 11.0}},
        {"variant": "openvino-int8", "accepted": False, "reason": "r", "measured": {"core_ms": 10.0}},
        {"variant": "bfloat16", "accepted": False, "reason": "No such processor.", "measured": None},
    )

    def test_the_fastest_that_is_accepted_is_taken(self, choice):
        chosen, reason = choice.choose(self.ROWS, "fastest", 0.003)
        assert chosen == "onnx-int8"
        assert "11.0 ms of a core an image, 4.5 times as fast as float32 with 49.5" in reason

    def test_a_name_is_taken_whatever_it_loses(self, choice):
        assert choice.choose(self.ROWS, "openvino-int8", 0.003)[0] == "openvino-int8"

    def test_a_name_that_cannot_be_had_says_why(self, choice):
        with pytest.raises(Exception, match=r"asks for bfloat16, which cannot be had: No such processor"):
            choice.choose(self.ROWS, "bfloat16", 0.003)


class TestEngineOfTheEndpoint:
    @pytest.mark.parametrize("has_network", [True, False])
    def test_it_is_required_and_travels_along_where_there_is_no_network(self, optimize, tmp_path, has_network):
        code, wheels = tmp_path / "code", tmp_path / "wheels"
        (code / "wheels").mkdir(parents=True)
        (code / "requirements.txt").write_text("fastjsonschema==2.22.3\n")
        if not has_network:
            wheels.mkdir()
            for name in ("onnxruntime-1.31.1-cp313-cp313-any", "openvino-2026.4.1-22982-cp313-cp313-any"):
                (wheels / f"{name}.whl").touch()
        optimize._require("openvino", code, wheels)
        assert (code / "requirements.txt").read_text().splitlines()[1].startswith("openvino==")
        carried = [wheel.name.partition("-")[0] for wheel in (code / "wheels").iterdir()]
        assert carried == ([] if has_network else ["openvino"])
