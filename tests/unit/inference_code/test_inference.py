"""The answers of inference.py: from an encoded image to labels, and every way in which that is refused."""

import hashlib
import io
import json
import shutil
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional

CORRUPT_EXIF = pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # Pillow warns and goes on


@pytest.fixture
def own_artifact(artifact, tmp_path):
    """A copy of the artifact that the test may break."""
    return shutil.copytree(artifact, tmp_path / "artifact")


def edit(folder, **changes):
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


class TestAnswer:
    def test_the_five_most_probable_labels_best_first_and_which_model_says_so(self, inference, model, tiny):
        image = inference.input_fn(tiny.encode(tiny.picture()), "image/png")
        body, content_type = inference.output_fn(inference.predict_fn(image, model), "application/json")
        answer = json.loads(body)
        assert content_type == "application/json"
        assert answer["model"] == {
            "run_id": model.description["run_id"],
            "weights_sha256": model.description["weights_sha256"],
            "confidence_threshold": 0.4,
            "package_arn": None,
        }
        probabilities = [prediction["probability"] for prediction in answer["predictions"]]
        assert len(probabilities) == 5
        assert probabilities == sorted(probabilities, reverse=True)
        logits = torch.from_numpy(inference.predict_logits(model, [image])[0])
        expected = torch.softmax(logits / model.description["temperature"], 0)
        for prediction in answer["predictions"]:
            label = model.description["classes"].index(prediction["label"])
            assert prediction["probability"] == pytest.approx(float(expected[label]), abs=1e-6)

    def test_fewer_classes_than_five_are_all_told(self, inference, tiny, tmp_path):
        tiny.make_artifact(tmp_path, classes=["yes", "no"])
        answer = inference.predict_fn(tiny.encode(tiny.picture()), inference.model_fn(tmp_path))
        assert {prediction["label"] for prediction in answer["predictions"]} == {"yes", "no"}

    def test_temperature_flattens_the_probabilities_and_leaves_the_logits(self, inference, model, own_artifact, tiny):
        edit(own_artifact, temperature=1000.0)
        flat, image = inference.model_fn(own_artifact), tiny.encode(tiny.picture())
        assert inference.predict_fn(image, flat)["predictions"][0]["probability"] == pytest.approx(1 / 6, abs=1e-2)
        np.testing.assert_array_equal(inference.predict_logits(flat, [image]), inference.predict_logits(model, [image]))

    def test_a_batch_gives_each_image_its_own_logits(self, inference, model, tiny):
        images = [tiny.encode(tiny.picture(40 + seed, 50, seed=seed)) for seed in range(3)]
        together = inference.predict_logits(model, images)
        assert together.shape == (3, 6)
        assert together.dtype == np.float32
        for image, logits in zip(images, together, strict=True):
            np.testing.assert_allclose(inference.predict_logits(model, [image])[0], logits, atol=1e-4)

    @pytest.mark.parametrize("accept", [None, "application/json", "*/*", "text/html, application/*;q=0.5"])
    def test_json_is_given_to_whom_it_is_acceptable(self, inference, accept):
        assert inference.output_fn({"a": 1}, accept) == (b'{"a": 1}', "application/json")

    def test_others_are_refused(self, inference):
        with pytest.raises(inference.NotAcceptable, match="text/csv"):
            inference.output_fn({}, "text/csv")


class TestPreprocessing:
    @pytest.mark.parametrize("size", [(60, 48), (48, 61), (37, 37), (300, 41), (33, 500)])
    @pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
    def test_pixels_are_those_of_torchvision(self, decoding, tiny, size, interpolation):
        preprocessing = {
            "resize_px": 36,
            "image_size_px": 32,
            "interpolation": interpolation,
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
        }
        picture = tiny.picture(*size)
        scaled = functional.resize(picture, 36, functional.InterpolationMode(interpolation))
        expected = functional.normalize(
            functional.to_tensor(functional.center_crop(scaled, 32)), preprocessing["mean"], preprocessing["std"]
        )
        np.testing.assert_allclose(
            decoding.preprocess(tiny.encode(picture), preprocessing), expected, atol=0.036
        )  # two levels of 255

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_a_picture_is_turned_upright(self, decoding, tiny, orientation):
        turns = [None, None, Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180]
        turns += [Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_90]
        turns += [Image.Transpose.TRANSVERSE, Image.Transpose.ROTATE_270]  # what undoes each orientation's turn
        upright, exif = tiny.picture(), Image.Exif()
        exif[0x0112] = orientation
        turn = turns[orientation]
        stored = upright if turn is None else upright.transpose(turn)
        decoded = decoding.decode(tiny.encode(stored, "PNG", exif=exif))
        assert np.array_equal(np.asarray(decoded), np.asarray(upright))

    @CORRUPT_EXIF
    def test_exif_data_that_cannot_be_read_is_ignored(self, decoding, tiny):
        image, exif = tiny.encode(tiny.picture(), "JPEG"), b"Exif\0\0II*\0\xff\xff\xff\xff"
        segment = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
        assert decoding.decode(image[:2] + segment + image[2:]).size == tiny.picture().size

    def test_grey_palette_bilevel_and_cmyk_become_rgb(self, decoding, tiny):
        picture = tiny.picture()
        for mode, kind in [("L", "PNG"), ("L", "JPEG"), ("1", "PNG"), ("P", "PNG"), ("CMYK", "JPEG"), ("LA", "PNG")]:
            decoded = decoding.decode(tiny.encode(picture.convert(mode), kind))
            assert (decoded.mode, decoded.size) == ("RGB", picture.size)

    def test_sixteen_bits_of_grey_are_scaled_and_not_clipped(self, decoding, tiny):
        ramp = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
        decoded = decoding.decode(tiny.encode(Image.fromarray(ramp)))
        assert np.abs(np.asarray(decoded)[..., 1].astype(int) - (ramp >> 8)).max() == 0

    def test_transparent_pixels_are_white_whatever_colour_they_hide(self, decoding, tiny):
        hidden = Image.new("RGBA", (40, 40), (255, 0, 0, 0))
        hidden.paste((0, 0, 255, 255), (0, 0, 20, 40))
        pixels = np.asarray(decoding.decode(tiny.encode(hidden)))
        assert pixels[0, 0].tolist() == [0, 0, 255]
        assert pixels[0, 39].tolist() == [255, 255, 255]
        palette = Image.new("P", (40, 40), 0)
        palette.putpalette([255, 0, 0, 0, 255, 0])
        assert np.asarray(decoding.decode(tiny.encode(palette, transparency=0)))[5, 5].tolist() == [255, 255, 255]


class TestRefusedImages:
    @pytest.mark.parametrize("content_type", [None, "", "application/json", "text/plain", "image/gif"])
    def test_a_declared_type_that_is_no_jpeg_or_png(self, inference, tiny, content_type):
        with pytest.raises(inference.UnsupportedMediaType, match="expected image/jpeg, image/png"):
            inference.input_fn(tiny.encode(tiny.picture()), content_type)

    @pytest.mark.parametrize(
        "content_type", ["image/jpeg", "IMAGE/PNG", "image/jpeg; charset=binary", "application/x-image"]
    )
    def test_the_content_decides_which_of_them_it_is(self, inference, tiny, content_type):
        image = tiny.encode(tiny.picture())
        assert inference.input_fn(image, content_type) == image

    @pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "WebP"])
    def test_another_format_is_named(self, inference, tiny, kind):
        with pytest.raises(inference.UnsupportedMediaType, match=kind):
            inference.input_fn(tiny.encode(tiny.picture(), kind), "image/jpeg")

    @pytest.mark.parametrize("body", [b"", b"hello", b"\0" * 100])
    def test_no_image_at_all(self, inference, decoding, body):
        with pytest.raises(decoding.UnreadableImage, match=r"empty|neither JPEG nor PNG"):
            inference.input_fn(body, "image/jpeg")

    @pytest.mark.parametrize("kind", ["JPEG", "PNG"])
    def test_a_truncated_image_is_not_guessed(self, inference, decoding, model, tiny, kind):
        whole = tiny.encode(tiny.picture(200, 200), kind)
        for length in (12, len(whole) // 3, len(whole) // 2, len(whole) - 40):
            with pytest.raises(decoding.UnreadableImage, match=r"cannot be (decoded|read)"):
                inference.predict_fn(whole[:length], model)

    @CORRUPT_EXIF
    def test_random_damage_is_answered_or_refused_and_nothing_else(self, inference, decoding, model, tiny):
        generator = np.random.default_rng(7)
        refused = 0
        for kind in ["JPEG", "PNG"] * 60:
            exif = Image.Exif()
            exif[0x0112] = 6
            damaged = bytearray(tiny.encode(tiny.picture(), kind, exif=exif))
            for position in generator.integers(9, len(damaged), 6):
                damaged[position] = generator.integers(256)
            try:
                answer = inference.predict_fn(bytes(damaged), model)
            except decoding.UnreadableImage:
                refused += 1
            else:
                assert len(answer["predictions"]) == 5
        assert refused > 20

    @pytest.mark.parametrize("size", [(50_000, 50_000), (9_000, 9_000), (13_000, 13_000)])
    def test_a_promise_of_too_many_pixels_is_refused_before_it_is_decoded(self, inference, decoding, model, size):
        with pytest.raises(decoding.UnreadableImage, match="64000000"):
            inference.predict_fn(png_header(*size), model)

    def test_a_picture_too_narrow_to_be_scaled(self, inference, decoding, model, tiny):
        with pytest.raises(decoding.UnreadableImage, match="too narrow"):
            inference.predict_fn(tiny.encode(Image.new("L", (1, 60_000))), model)


class TestBrokenArtifact:
    def test_a_whole_one_reproduces_its_golden_answers(self, inference, model, artifact):
        assert inference.verify_golden_images(model, artifact) == 2

    def test_a_logit_that_is_off(self, inference, own_artifact):
        golden = json.loads((own_artifact / "model.json").read_text())["golden"]
        golden[1]["logits"][2] += 0.05
        edit(own_artifact, golden=golden)
        with pytest.raises(inference.ArtifactError, match=r"golden/1\.png is 0\.05"):
            inference.verify_golden_images(inference.model_fn(own_artifact), own_artifact)

    def test_other_preprocessing_than_in_training(self, inference, own_artifact):
        preprocessing = json.loads((own_artifact / "model.json").read_text())["preprocessing"]
        edit(own_artifact, preprocessing=preprocessing | {"mean": [0.5, 0.5, 0.5]})
        with pytest.raises(inference.ArtifactError, match=r"golden image golden/0\.jpg"):
            inference.verify_golden_images(inference.model_fn(own_artifact), own_artifact)

    def test_no_golden_image_or_one_that_is_not_there(self, inference, own_artifact):
        (own_artifact / "golden" / "0.jpg").unlink()
        with pytest.raises(inference.ArtifactError, match=r"golden/0\.jpg"):
            inference.verify_golden_images(inference.model_fn(own_artifact), own_artifact)
        edit(own_artifact, golden=[])
        with pytest.raises(inference.ArtifactError, match="no golden images"):
            inference.verify_golden_images(inference.model_fn(own_artifact), own_artifact)

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"weights_file": "weights.bin"}, "not a file of the artifact"),
            ({"weights_file": "../artifact/../../passwd"}, "not a file of the artifact"),
            ({"weights_sha256": "f" * 64}, "has the SHA-256"),
            ({"architecture": "resnet19"}, "has no resnet19"),
            ({"architecture": "shufflenet_v2_x1_0"}, "does not fit the shufflenet_v2_x1_0"),
            ({"head": {"path": "head", "in_features": 1024, "hidden_units": 16, "dropout": 0}}, "has no layer head"),
            ({"head": {"path": "fc", "in_features": 2048, "hidden_units": 16, "dropout": 0}}, "expected 2048 inputs"),
            ({"classes": ["a", "b"]}, "does not fit"),
            ({"version": 2}, r"does not keep contracts/model\.schema\.json"),
            ({"surplus": 1}, r"does not keep contracts/model\.schema\.json"),
        ],
    )
    def test_model_json_that_does_not_fit(self, inference, own_artifact, changes, reason):
        edit(own_artifact, **changes)
        with pytest.raises(inference.ArtifactError, match=reason):
            inference.model_fn(own_artifact)

    def test_a_square_larger_than_the_scaled_image(self, inference, own_artifact):
        preprocessing = json.loads((own_artifact / "model.json").read_text())["preprocessing"]
        edit(own_artifact, preprocessing=preprocessing | {"resize_px": 31})
        with pytest.raises(inference.ArtifactError, match="no square of 32 px"):
            inference.model_fn(own_artifact)

    def test_no_model_json(self, inference, tmp_path):
        with pytest.raises(inference.ArtifactError, match=r"model\.json cannot be read"):
            inference.model_fn(tmp_path)

    def test_weights_that_are_no_safetensors(self, inference, own_artifact):
        (own_artifact / "model.safetensors").write_bytes(b"nothing")
        edit(own_artifact, weights_sha256=hashlib.sha256(b"nothing").hexdigest())
        with pytest.raises(inference.ArtifactError, match="does not fit"):
            inference.model_fn(own_artifact)


def png_header(width, height):
    """A PNG of a few bytes that promises width x height pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    file = io.BytesIO()
    file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)))
    file.write(chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b""))
    return file.getvalue()
