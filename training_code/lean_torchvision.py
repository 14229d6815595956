"""torchvision without PyTorch's compiler, which is most of what its import takes."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

ASKED = "torch._dynamo.utils"


def import_torchvision() -> Any:
    """Return torchvision, in a fifth of a second instead of two.

    Its roi_align imports torch._dynamo for one function that only detection networks call, though it means not to
    (https://github.com/pytorch/vision/pull/8436): here a stand-in has it.
    """
    if "torchvision" in sys.modules or ASKED in sys.modules:
        return importlib.import_module("torchvision")
    sys.modules[ASKED] = stand_in = ModuleType(ASKED)
    stand_in.__dict__["is_compile_supported"] = lambda _device_type: False
    try:
        return importlib.import_module("torchvision")
    finally:
        del sys.modules[ASKED]
