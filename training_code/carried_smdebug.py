"""smdebug 1.0.34 as it travels with the job code, made to run on the Python and the protobuf that are there.

It is no requirement of the jobs: it pins protobuf to 3.20, so that pip would take from SageMaker's image the one that
the image's own packages need. Unchanged, from its wheel, it lacks three things on Python 3.12. Importing this module
brings them, and makes `import smdebug` work:
- protocol buffers for protobuf 4 and later: built anew from the descriptors in its generated code. They are written
  ten times as fast by protobuf's C implementation as by the one in Python, which alone takes the generated code itself;
- pyinstrument and distutils, which a profiler of its own imports that no PyTorch since 2.0 has, and its configuration;
- ndarray.tostring, which numpy 2.3 has no more.
It also makes smdebug's writing about half as long, and its import: readers of that profiler's metrics stay out, and
with them pandas.
"""

from __future__ import annotations

import ast
import functools
import importlib
import os
import sys
import types
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

WHEEL = Path(__file__).with_name("smdebug-1.0.34-py2.py3-none-any.whl")
PROTOCOL = "smdebug.core.tfevent.proto"
MESSAGES = (
    *("types", "tensor_shape", "resource_handle", "tensor", "summary", "event"),
    *("attr_value", "node_def", "versions", "graph"),
)
"""Its files of messages, each after those that it imports."""
READERS = ("LocalSystemMetricsReader", "S3SystemMetricsReader", "S3NumpySystemMetricsReader", "ProfilerSystemEvents")


def provide() -> None:
    """Make `import smdebug` work."""
    # Its log of what it does not find would go to the job's; a reader would wait a second for S3 to settle.
    os.environ.setdefault("SMDEBUG_LOG_LEVEL", "error")
    os.environ.setdefault("SMDEBUG_TRAINING_END_DELAY_REFRESH", "0")
    warnings.filterwarnings("ignore", "invalid escape sequence", SyntaxWarning)  # of its code, at every import
    sys.path.insert(0, str(WHEEL))
    for name, members in (
        ("pyinstrument", {"Profiler": None}),
        ("pyinstrument.renderers", {"JSONRenderer": None}),
        ("distutils", {}),
        ("distutils.util", {"strtobool": _strtobool}),
    ):
        if not _is_there(name):
            _stand_in(name, members)
    _stand_in("smdebug.profiler.system_metrics_reader", dict.fromkeys(READERS))
    with zipfile.ZipFile(WHEEL) as wheel:
        for name in MESSAGES:
            _build_messages(f"{PROTOCOL}.{name}_pb2", wheel.read(f"{PROTOCOL.replace('.', '/')}/{name}_pb2.py"))
    writer = importlib.import_module("smdebug.core.writer")
    vars(writer)["make_tensor_proto"] = functools.partial(_make_tensor_proto, writer.make_tensor_proto)
    _remember(writer.FileWriter, "_get_metadata", staticmethod)
    _remember(importlib.import_module("smdebug.core.tfrecord.record_writer"), "masked_crc32c")


def _remember(owner: Any, name: str, wrap: Callable[..., Any] = lambda function: function) -> None:
    """Keep a function's latest answers: smdebug works out anew, for each number, what is the same for a whole file."""
    setattr(owner, name, wrap(functools.lru_cache(64)(getattr(owner, name))))


def _build_messages(module_name: str, source: bytes) -> None:
    """Put a module of messages in the place of protoc 3's, from the description that it holds."""
    from google.protobuf import descriptor_pool
    from google.protobuf.internal import builder

    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    described = next(word.value for call in calls for word in call.keywords if word.arg == "serialized_pb")
    module = types.ModuleType(module_name)
    descriptor = descriptor_pool.Default().AddSerializedFile(ast.literal_eval(described))
    module.__dict__["DESCRIPTOR"] = descriptor
    builder.BuildMessageAndEnumDescriptors(descriptor, module.__dict__)
    builder.BuildTopDescriptorsAndMessages(descriptor, module_name, module.__dict__)
    sys.modules[module_name] = module
    setattr(importlib.import_module(PROTOCOL), module_name.rpartition(".")[2], module)


def _is_there(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True


def _stand_in(name: str, members: dict[str, Any]) -> None:
    module = types.ModuleType(name)
    module.__dict__.update(members)
    sys.modules[name] = module


def _strtobool(text: str) -> int:
    """Return 1 for what distutils took for true, 0 for what it took for false."""
    if text.lower() in ("y", "yes", "t", "true", "on", "1"):
        return 1
    if text.lower() in ("n", "no", "f", "false", "off", "0"):
        return 0
    raise ValueError(f"invalid truth value {text!r}")


class _Array(np.ndarray):
    def tostring(self) -> bytes:
        return self.tobytes()


def _make_tensor_proto(original: Callable[..., Any], nparray_data: Any, tag: str) -> Any:
    return original(nparray_data=np.asarray(nparray_data).view(_Array), tag=tag)


provide()
