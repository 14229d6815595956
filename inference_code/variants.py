"""Variants of a trained model: which there are, and how their files are made, by the libraries' own tools.

Only OptimizeModel's job needs what is imported here (optimize-requirements.txt); the endpoint never does.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

VARIANTS: dict[str, dict[str, Any]] = {
    "float32": {"engine": "torch", "precision": "float32", "file": None},
    "bfloat16": {"engine": "torch", "precision": "bfloat16", "file": None},
    "onnx-float32": {"engine": "onnxruntime", "precision": "float32", "file": "variants/float32.onnx"},
    "onnx-int8": {"engine": "onnxruntime", "precision": "int8", "file": "variants/int8.onnx"},
    "openvino-bfloat16": {"engine": "openvino", "precision": "bfloat16", "file": "variants/float32.onnx"},
    "openvino-int8": {"engine": "openvino", "precision": "int8", "file": "variants/int8.onnx"},
}
"""By name, with what serving.json says of them. torch.compile is none of them: it compiles at
each start of each instance, by a C++ compiler that the image need not have."""
PACKAGE_OF = {"onnxruntime": "onnxruntime", "openvino": "openvino"}
"""What an engine needs beyond the serving image; its pin is in optimize-requirements.txt."""
OPSET = 17
CALIBRATION_BATCH = 8
COMPARED_IMAGES = 2  # whose activations are held against each other, all at once in memory
SENSITIVE_OPERATORS = ("Conv", "Gemm", "MatMul")
FUSED_OPERATORS = ("Clip", "Relu")


def export_float32(network: Any, image_size_px: int, path: Path) -> None:
    """Write the network as an ONNX graph `images` (N, 3, S, S) to `logits` (N, C), for any N."""
    import torch

    example = torch.zeros(2, 3, image_size_px, image_size_px)
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        # The exporter by torch.export needs onnxscript and gives graphs that ONNX Runtime quantises less of.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.float(),
            (example,),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["logits"],
            dynamic_axes={"images": {0: "n"}, "logits": {0: "n"}},
        )


def quantise(float32: Path, path: Path, images: np.ndarray, kept: Sequence[str]) -> None:
    """Write the int8 graph of a float32 one: static, weights per channel, calibrated on `images`.

    kept: nodes that stay as they are. Activations are unsigned: of the pairs that ONNX Runtime offers that is the one
    with kernels for VNNI (of ResNet-50 on two cores, 23 ms an image against 57 with signed ones).
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    prepared = _prepared(float32)
    exact = [*kept, *_arithmetic_on_shapes(onnx.load(prepared).graph)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantize_static(
            prepared,
            path,
            _Reader(images),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=exact,
        )


def rank_sensitive_layers(float32: Path, int8: Path, images: np.ndarray) -> list[str]:
    """Return the nodes whose outputs int8 spoils most, the worst first, by ONNX Runtime's own comparison.

    https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html#quantization-debugging
    """
    import onnx
    from onnxruntime.quantization import qdq_loss_debug

    prepared = _prepared(float32)
    activations = []
    for graph in (prepared, int8):
        augmented = graph.with_suffix(".augmented.onnx")
        qdq_loss_debug.modify_model_output_intermediate_tensors(str(graph), str(augmented))
        reader = _Reader(images[:COMPARED_IMAGES])
        activations.append(qdq_loss_debug.collect_activations(str(augmented), reader))
        augmented.unlink()
    pairs = qdq_loss_debug.create_activation_matching(activations[1], activations[0])
    errors = qdq_loss_debug.compute_activation_error(pairs)
    nodes = onnx.load(prepared).graph.node
    follower = {node.input[0]: node for node in nodes if node.op_type in FUSED_OPERATORS}
    ratio = {}
    for node in nodes:
        output = node.output[0]
        if node.op_type in SENSITIVE_OPERATORS and output not in errors and output in follower:
            output = follower[output].output[0]  # what int8 has of both
        if node.op_type in SENSITIVE_OPERATORS and output in errors:
            ratio[node.name] = errors[output]["xmodel_err"]
    return sorted(ratio, key=lambda name: ratio[name])  # signal to noise, in decibels: the lowest is the worst


def discard_prepared(float32: Path) -> None:
    """Remove what quantising leaves beside the graphs."""
    _place_of_prepared(float32).unlink(missing_ok=True)


def _arithmetic_on_shapes(graph: Any) -> list[str]:
    """Return the nodes that compute with sizes, of a padding for one: in 8 bits they would come to other sizes.

    EfficientNet-Lite0 as timm has it pads so, with a division in floating point, which ONNX Runtime would quantise.
    """
    known, sizes = {initializer.name for initializer in graph.initializer} | {""}, set[str]()
    found = []
    for node in graph.node:  # sorted: what a node reads comes before it
        if node.op_type == "Constant":
            known.update(node.output)
        elif node.op_type == "Shape" or (sizes.intersection(node.input) and known.union(sizes).issuperset(node.input)):
            sizes.update(node.output)
            found.append(node.name)
    return found


class _Reader:
    """Calibration data as ONNX Runtime reads it: one batch after the other, then None."""

    def __init__(self, images: np.ndarray):
        self._batches: Iterator[np.ndarray] = iter(
            [images[start : start + CALIBRATION_BATCH] for start in range(0, len(images), CALIBRATION_BATCH)]
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"images": batch}

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return iter(self.get_next, None)


def _prepared(float32: Path) -> Path:
    """Return the graph with batch normalisation folded and shapes inferred, as quantising wants it."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    path = _place_of_prepared(float32)
    if not path.exists():
        unfinished = path.with_suffix(".unfinished")
        quant_pre_process(str(float32), str(unfinished), skip_symbolic_shape=True)
        shutil.move(unfinished, path)
    return path


def _place_of_prepared(float32: Path) -> Path:
    return float32.with_suffix(".prepared.onnx")
