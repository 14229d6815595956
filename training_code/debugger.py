"""Hooks by smdebug, SageMaker Debugger's library: the only module that imports it.

Losses, and reductions (min, max, L2 norm, mean of the absolute) of weights, biases and gradients, in smdebug's own
format, which create_trial and others' tools read. Configured by SageMaker's debughookconfig.json where the job has one.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

# Read by smdebug and protobuf when they are imported. smdebug's generated code is older than protobuf's C++ and upb
# implementations accept; its log of what it does not find would go to the job's log; a reader would wait a second for
# S3 to settle.
os.environ.setdefault("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python")
os.environ.setdefault("SMDEBUG_LOG_LEVEL", "error")
os.environ.setdefault("SMDEBUG_TRAINING_END_DELAY_REFRESH", "0")

import smdebug.core.writer
import smdebug.pytorch as smd
from smdebug.core.error_handling_agent import ErrorHandlingAgent
from smdebug.exceptions import TensorUnavailableForStep
from smdebug.rules.rule import Rule
from smdebug.trials import create_trial

__all__ = ["Hooks", "Rule", "TensorUnavailableForStep", "create_trial", "modes"]

modes = smd.modes
FOLDER = "smdebug"
LOSSES_PER_SAVE = 4  # a loss is one number: it is saved more often than the reductions of every weight


class Hooks:
    """smdebug's hooks on a network and its loss. Trouble in them is noted and ends them, not the training."""

    def __init__(
        self,
        network: nn.Module,
        criterion: nn.Module,
        output: Path,
        save_interval_steps: int,
        configuration: Path | None,
    ):
        """Register. Raises what smdebug raises, and RuntimeError where it would have switched itself off silently."""
        _repair_writer()
        if configuration:
            self._hook = _Hook.create_from_json_file(str(configuration))
        else:
            self._hook = _default_hook(_fresh(output / FOLDER), save_interval_steps)
        self._hook.register_module(network)
        self._hook.register_loss(criterion)
        if ErrorHandlingAgent.get_error_handling_agent().disable_smdebug:
            raise RuntimeError("smdebug has switched itself off; its error is in the job's log")
        folder = Path(self._hook.out_dir)
        self.tensors = folder.name if folder.parent == output else str(folder)

    @property
    def steps(self) -> int:
        """Training steps that the hooks saw."""
        return self._hook.mode_steps.get(modes.TRAIN, -1) + 1

    def mode(self, training: bool) -> None:
        """Say whether the next forward passes train or validate."""
        self._hook.set_mode(modes.TRAIN if training else modes.EVAL)

    def close(self) -> str | None:
        """Write what is left and the end marker; return what went wrong in the hooks so far, if anything."""
        if not self._hook.trouble:
            self._hook.close()
        closed, self._hook.trouble = self._hook.trouble, self._hook.trouble or "closed"
        return closed

    def review(self) -> tuple[int, list[dict[str, Any]]]:
        """Read back what was written: the number of tensors, and the rules' findings."""
        from rules import review  # rules.py subclasses this module's Rule

        if not Path(self._hook.out_dir, "collections").is_dir():
            return 0, []
        trial = create_trial(str(self._hook.out_dir))
        return len(trial.tensor_names()), review(trial)


class _Hook(smd.Hook):
    """smdebug's hook, which by its own choice either ends the training or goes silent when it fails: neither here."""

    trouble: str | None = None

    def forward_pre_hook(self, module: nn.Module, inputs: Any) -> None:
        self._guarded(super().forward_pre_hook, module, inputs)

    def forward_hook(self, module: nn.Module, inputs: Any, outputs: Any) -> None:
        # At other steps it only keeps times for a profiler that no PyTorch since 2.0 has
        if self._get_collections_to_save_for_step():
            self._guarded(super().forward_hook, module, inputs, outputs)

    def fhook(self, module: nn.Module, inputs: Any, outputs: Any) -> None:
        """Do nothing: it serves that profiler too."""

    def backward_hook(self, tname: str) -> Callable[[Any], None]:
        return functools.partial(self._guarded, super().backward_hook(tname))

    def _guarded(self, hook: Callable[..., None], *arguments: Any) -> None:
        if self.trouble:
            return
        try:
            hook(*arguments)
        except Exception as error:  # noqa: BLE001 - whatever smdebug raises is the finding
            self.trouble = f"the hooks failed at step {self.step}: {type(error).__name__}: {error}"


def _default_hook(folder: Path, save_interval_steps: int) -> _Hook:
    often = max(1, save_interval_steps // LOSSES_PER_SAVE)
    never = smd.SaveConfigMode(save_interval=1, start_step=0, end_step=0)
    hook = _Hook(
        out_dir=str(folder),
        reduction_config=smd.ReductionConfig(reductions=["min", "max"], abs_reductions=["mean"], norms=["l2"]),
        save_config=smd.SaveConfig(
            {modes.TRAIN: smd.SaveConfigMode(save_interval=save_interval_steps), modes.EVAL: never}
        ),
        include_collections=["losses", "weights", "biases", "gradients"],
    )
    hook.get_collection("losses").save_config = smd.SaveConfig(
        {modes.TRAIN: smd.SaveConfigMode(save_interval=often), modes.EVAL: smd.SaveConfigMode(save_interval=1)}
    )
    return hook


def _fresh(folder: Path) -> Path:
    """Return a folder that is not there yet, which smdebug wants: `folder`, or with the first free number."""
    candidate, number = folder, 2
    while candidate.exists():
        candidate, number = folder.with_name(f"{folder.name}-{number}"), number + 1
    return candidate


def _repair_writer() -> None:
    """Let smdebug write arrays under numpy 2.3 and later, which have no ndarray.tostring any more."""
    original = smdebug.core.writer.make_tensor_proto
    if isinstance(original, functools.partial):
        return
    smdebug.core.writer.make_tensor_proto = functools.partial(_make_tensor_proto, original)


class _Array(np.ndarray):
    def tostring(self) -> bytes:
        return self.tobytes()


def _make_tensor_proto(original: Callable[..., Any], nparray_data: Any, tag: str) -> Any:
    return original(nparray_data=np.asarray(nparray_data).view(_Array), tag=tag)
