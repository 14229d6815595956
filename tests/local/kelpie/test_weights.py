"""A run on frozen features, with weights from a file of the user's, that updates the endpoint of the run before."""

import json
import subprocess

import pytest

from localcloud.containers.environments import Environments

SETTINGS = (
    "model.architecture=resnet18",
    "model.image_size_px=32",
    "tuning.max_jobs=2",
    "training.epochs=3",
    "serving.variant=onnx-float32",
)
WRITE_WEIGHTS = "import sys, torch, torchvision; torch.save(torchvision.models.resnet18().state_dict(), sys.argv[1])"


@pytest.mark.slow
def test_a_run_with_weights_from_a_file_tunes_on_frozen_features_and_updates_the_endpoint(
    trained, live, session, outputs
):
    file = live.folder / "own weights.pth"
    python = Environments().image("pytorch", print).python
    subprocess.run([python, "-c", WRITE_WEIGHTS, file], check=True)
    settings = [f"--set={setting}" for setting in (*SETTINGS, f"model.weights={file}", "tuning.ranges.batch_size=16")]
    document = json.loads(live.ok("run", "photos", "--json", *settings))

    assert document["status"] == "SUCCEEDED"
    assert document["run_id"] != trained["run_id"]
    features = session.client("s3").list_objects_v2(Bucket=outputs["Bucket"], Prefix="features/")
    assert features["KeyCount"] > 0
    assert "OptimizeModel" in [state["name"] for state in document["states"]]
    job = f"runs/{document['run_id']}/jobs/kelpie-{document['run_id']}-evaluate-1"
    evaluation = session.client("s3").get_object(Bucket=outputs["Bucket"], Key=f"{job}/output/model/evaluation.json")
    table = json.loads(evaluation["Body"].read())["variants"]
    assert [row["variant"] for row in table["variants"]] == ["float32", "onnx-float32"]
    assert table["chosen"] == "onnx-float32"
    image = next((live.folder / "photos" / "test").glob("*/*.jpg")).read_bytes()
    answer = session.client("sagemaker-runtime").invoke_endpoint(
        EndpointName="kelpie", ContentType="image/jpeg", Body=image
    )
    assert answer["CustomAttributes"] == "variant=onnx-float32"
    endpoint = json.loads(live.ok("status", "--json"))["endpoint"]
    assert endpoint["status"] == "InService"
    assert endpoint["config"].startswith(f"kelpie-{document['run_id']}")
