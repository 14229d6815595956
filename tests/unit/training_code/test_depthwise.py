"""Our gradients of depthwise convolutions against PyTorch's own."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from depthwise import FastDepthwise
from torch.nn import functional


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("height", "width", "kernel", "stride", "padding"),
    [(16, 17, 3, 2, 1), (15, 16, 5, 2, 2), (9, 9, 5, 1, 2), (17, 17, 3, 2, 0), (10, 11, 5, 2, 0), (8, 8, 3, 1, 1)],
)
def test_gradients_are_pytorchs(height: int, width: int, kernel: int, stride: int, padding: int, bias: bool) -> None:
    torch.manual_seed(0)
    images = torch.randn(4, 8, height, width).contiguous(memory_format=torch.channels_last)
    weight, offset = torch.randn(8, 1, kernel, kernel), torch.randn(8) if bias else None

    def gradients(fast: bool) -> list[torch.Tensor]:
        given = [t.clone().requires_grad_() for t in (images, weight, *([offset] if offset is not None else []))]
        with torch.autocast("cpu", torch.bfloat16), FastDepthwise() if fast else nullcontext():
            made = functional.conv2d(*given[:2], given[2] if bias else None, stride, padding, 1, 8)
        made.float().square().sum().backward()
        return [made.detach().float(), *(tensor.grad for tensor in given if tensor.grad is not None)]

    for ours, theirs in zip(gradients(True), gradients(False), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0.02, atol=0.02 * float(theirs.abs().max()))


@pytest.mark.parametrize("options", [{"groups": 1}, {"groups": 2}, {"groups": 4, "dilation": 2}])
def test_other_convolutions_stay_as_they_are(options: dict[str, Any]) -> None:
    images, weight = torch.randn(2, 4, 9, 9), torch.randn(4, 4 // options["groups"], 3, 3, requires_grad=True)

    with torch.autocast("cpu", torch.bfloat16):
        expected = functional.conv2d(images, weight, None, **options)
        with FastDepthwise():
            assert torch.equal(functional.conv2d(images, weight, None, **options), expected)
