"""Depthwise convolutions in bfloat16 on CPUs, with the gradients that oneDNN has no fast kernel for.

Of a step of EfficientNet-Lite0, PyTorch 2.14 spends two thirds in two of them: the gradient by the input of a strided
depthwise convolution (fifteen times the forward pass) and that by the weights of a 5 x 5 one (forty times). Both can be
had from kernels that are fast: docs/experiments.md has the figures, benchmarks/training_step.py measures them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

TILE = 3  # side of the weights whose gradient is fast


class FastDepthwise(TorchFunctionMode):
    """Inside it, and inside autocast to bfloat16, depthwise convolutions on CPUs have fast gradients."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if function is functional.conv2d:
            return _conv2d(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))


def _conv2d(
    images: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> torch.Tensor:
    """Convolve: what is ours by our gradients, anything else as always."""
    channels, each, *kernel = weight.shape
    strides, paddings = _pair(stride), _pair(padding)
    is_ours = (
        groups == channels == images.shape[1]
        and each == 1
        and kernel[0] == kernel[1] in (3, 5)
        and strides[0] == strides[1]
        and _pair(dilation) == (1, 1)
        and all(isinstance(side, int) and side < kernel[0] for side in paddings)
        and images.device.type == "cpu"
        and torch.is_autocast_enabled("cpu")
        and weight.requires_grad
    )
    if not is_ours:
        return functional.conv2d(images, weight, bias, stride, padding, dilation, groups)
    numbers = torch.get_autocast_dtype("cpu")
    made: torch.Tensor = _Depthwise.apply(images.to(numbers), weight.to(numbers), strides[0], paddings)
    return made if bias is None else made + bias.to(numbers).view(1, -1, 1, 1)


class _Depthwise(torch.autograd.Function):
    """(N, C, H, W) by (C, 1, K, K)."""

    @staticmethod
    def forward(
        context: Any, images: torch.Tensor, weight: torch.Tensor, stride: int, padding: tuple[int, int]
    ) -> torch.Tensor:
        context.save_for_backward(images, weight)
        context.stride, context.padding = stride, padding
        return functional.conv2d(images, weight, None, stride, padding, 1, len(weight))

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor, None, None]:
        images, weight = context.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        by_images = None
        if context.needs_input_grad[0]:
            by_images = _by_images(images.shape, weight, gradient, context.stride, context.padding)
        return by_images, _by_weight(images, weight, gradient, context.stride, context.padding), None, None


def _by_images(
    shape: torch.Size, weight: torch.Tensor, gradient: torch.Tensor, stride: int, padding: tuple[int, int]
) -> torch.Tensor:
    """Return the gradient by the images: the turned weights over the gradient, spread out by the stride.

    Zeros between the gradient's values make of it what a convolution without a stride would have had.
    """
    number, channels, height, width = shape
    kernel = weight.shape[2]
    spread = gradient.new_zeros(
        (number, channels, height + 2 * padding[0] - kernel + 1, width + 2 * padding[1] - kernel + 1)
    ).contiguous(memory_format=torch.channels_last)
    spread[:, :, ::stride, ::stride] = gradient
    around = (kernel - 1 - padding[0], kernel - 1 - padding[1])
    return functional.conv2d(spread, weight.flip(2, 3), None, 1, around, 1, channels)


def _by_weight(
    images: torch.Tensor, weight: torch.Tensor, gradient: torch.Tensor, stride: int, padding: tuple[int, int]
) -> torch.Tensor:
    """Return the gradient by the weights, from tiles of 3 x 3 that overlap where the kernel has five."""
    kernel, channels = weight.shape[2], len(weight)
    padded = functional.pad(images, (padding[1], padding[1], padding[0], padding[0]))
    height, width = ((side - 1) * stride + TILE for side in gradient.shape[2:])
    result = torch.empty_like(weight)
    tile = weight[:, :, :TILE, :TILE]
    for top in range(0, kernel - TILE + 1, 2):
        for left in range(0, kernel - TILE + 1, 2):
            seen = padded[:, :, top : top + height, left : left + width].contiguous(memory_format=torch.channels_last)
            _, by_tile, _ = torch.ops.aten.convolution_backward(
                gradient, seen, tile, None, [stride] * 2, [0, 0], [1, 1], False, [0, 0], channels, [False, True, False]
            )
            result[:, :, top : top + TILE, left : left + TILE] = by_tile
    return result


def _pair(value: Any) -> tuple[Any, Any]:
    first, second = (value, value) if isinstance(value, int | str) else (value[0], value[-1])
    return first, second
