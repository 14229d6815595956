"""Which device and which number format this machine computes in."""

from __future__ import annotations

import os

import torch
from job import JobError

LEAST_REDUCED_PX = 96


def choose_device() -> torch.device:
    """Return the GPU if there is one. Raises JobError where the instance has one that PyTorch cannot use."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if int(os.environ.get("SM_NUM_GPUS", "0")) > 0:
        raise JobError("the instance has a GPU, but the image's PyTorch cannot use it: choose the GPU training image")
    return torch.device("cpu")


def training_dtype(device: torch.device, image_size_px: int) -> torch.dtype:
    """Return the number format to train images of that side in: where they are small, casting costs what it saves."""
    return inference_dtype(device) if image_size_px >= LEAST_REDUCED_PX else torch.float32


def inference_dtype(device: torch.device) -> torch.dtype:
    """Return bfloat16 where the hardware multiplies in it, else float32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    capabilities = torch.cpu.get_capabilities()
    fast = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return torch.bfloat16 if fast else torch.float32
