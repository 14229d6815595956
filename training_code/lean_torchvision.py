"""torchvision, imported without PyTorch's compiler, which is two of the four seconds that it takes.

`from lean_torchvision import torchvision`, before anything else imports it. Its roi_align imports torch._dynamo for one
function that only detection networks call, though it means not to (https://github.com/pytorch/vision/pull/8436).
"""

from __future__ import annotations

import sys
from types import ModuleType

ASKED = "torch._dynamo.utils"


class _Utils(ModuleType):
    @staticmethod
    def is_compile_supported(_device_type: str) -> bool:
        return False


if ASKED in sys.modules:
    import torchvision
else:
    sys.modules[ASKED] = _Utils(ASKED)
    try:
        import torchvision
    finally:
        del sys.modules[ASKED]

__all__ = ["torchvision"]
