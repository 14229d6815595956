"""The stock way: SageMaker's own inference toolkit around PyTorch, behind uvicorn.

    ARTIFACT=model THREADS=1 uvicorn --app-dir benchmarks/serving baseline:application --workers 2

Eager, float32, contiguous, one request at a time in each worker, photographs decoded at full size by Pillow and
prepared by torchvision. Weights and network are those of the artifact.
"""

from __future__ import annotations

import functools
import io
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from sagemaker_inference.transformer import Transformer
from torchvision import transforms

ARTIFACT = Path(os.environ["ARTIFACT"])


def model_fn(model_dir: str) -> tuple[torch.nn.Module, transforms.Compose, list[str]]:
    torch.set_num_threads(int(os.environ["THREADS"]))
    sys.path.append(str(Path(model_dir) / "code"))
    from networks import load_network

    description = json.loads((Path(model_dir) / "model.json").read_bytes())
    preprocessing = description["preprocessing"]
    prepare = transforms.Compose(
        [
            transforms.Resize(preprocessing["resize_px"]),
            transforms.CenterCrop(preprocessing["image_size_px"]),
            transforms.ToTensor(),
            transforms.Normalize(preprocessing["mean"], preprocessing["std"]),
        ]
    )
    weights = (Path(model_dir) / description["weights_file"]).read_bytes()
    return load_network(description, weights), prepare, description["classes"]


def input_fn(body: bytes, _content_type: str) -> Image.Image:
    return Image.open(io.BytesIO(body)).convert("RGB")


def predict_fn(image: Image.Image, model: tuple[torch.nn.Module, transforms.Compose, list[str]]) -> list[Any]:
    network, prepare, classes = model
    with torch.inference_mode():
        probabilities = torch.softmax(network(prepare(image)[None]), 1)[0]
    best = probabilities.topk(min(5, len(classes)))
    return [
        {"label": classes[index], "probability": value}
        for value, index in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ]


def output_fn(predictions: list[Any], accept: str) -> tuple[str, str]:
    return json.dumps({"predictions": predictions}), accept


class Context:
    """What the toolkit wants to know of a request, as the multi-model server tells it."""

    def __init__(self, headers: Mapping[str, str]):
        self.system_properties = {"model_dir": str(ARTIFACT)}
        self.request_processor, self._headers = [self], headers
        self.status = 200

    def get_request_properties(self) -> Mapping[str, str]:
        return self._headers

    def set_response_content_type(self, _index: int, _content_type: str) -> None:
        pass

    def set_response_status(self, code: int, **_: str) -> None:
        self.status = code


@functools.cache
def transformer() -> Transformer:
    os.environ["SAGEMAKER_PROGRAM"] = f"{__name__}.py"
    return Transformer()


async def application(scope: Mapping[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
    """ASGI, without a framework: a lean baseline."""
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    headers = {name.decode().title(): value.decode() for name, value in scope["headers"]}
    context = Context(headers)
    answer = transformer().transform([{"body": body}], context)[0].encode()
    length = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
    await send({"type": "http.response.start", "status": context.status, "headers": length})
    await send({"type": "http.response.body", "body": answer})
