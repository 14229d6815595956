"""smdebug, SageMaker Debugger's library, as hooks and rules need it: the only module that imports it.

What is saved is in smdebug's own format, which create_trial and others' tools read; losses, accuracy and learning rate
are TensorBoard events too. SageMaker's debughookconfig.json says what is saved where the job has one.
"""

from __future__ import annotations

import functools
import logging
import struct
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import carried_smdebug  # noqa: F401 - makes smdebug importable
import numpy as np
import smdebug.pytorch as smd
import torch
from observations import ALL_FIELDS, Observed, reduce
from saved import (
    ACTIVATIONS,
    ACTIVITY,
    BIASES,
    GRADIENTS,
    INPUTS,
    LOSSES,
    PHASE_START,
    SCALARS,
    TRAINING_STEP,
    UPDATES,
    VALID_IMAGES,
    WEIGHTS,
    Reductions,
    SavedStep,
)
from saved_collections import SAVED_COLLECTIONS
from smdebug.core.error_handling_agent import ErrorHandlingAgent
from smdebug.core.json_config import add_collections_to_manager, collect_hook_config_params
from smdebug.core.locations import TensorLocation
from smdebug.core.reductions import get_reduction_tensor_name
from smdebug.core.tfevent.events_writer import EventsWriter
from smdebug.core.tfevent.proto.event_pb2 import Event
from smdebug.core.tfevent.proto.tensor_pb2 import TensorProto
from smdebug.core.utils import get_relative_event_file_path
from smdebug.core.writer import FileWriter, make_tensor_proto
from smdebug.exceptions import ShapeUnavailableForStep, TensorUnavailableForStep
from smdebug.rules.rule import Rule
from smdebug.trials import create_trial

__all__ = ["FolderTrial", "Hook", "Rule", "create_trial", "modes", "open_hook"]

modes = smd.modes
FOLDER, TENSORBOARD_FOLDER = "smdebug", "tensorboard"
SCALARS_PER_SAVE = 4  # a loss is one number: it is saved more often than the reductions of every weight

REDUCED = (WEIGHTS, BIASES, GRADIENTS, UPDATES, ACTIVATIONS)
SMALL = (ACTIVITY, INPUTS)
FIELDS = {
    ("min", False): "minimum",
    ("max", False): "maximum",
    ("mean", False): "mean",
    ("mean", True): "absolute_mean",
    ("variance", False): "variance",
    ("l2", False): "l2",
}


def open_hook(output: Path, configuration: Path | None) -> Hook:
    """Return the hook that SageMaker's configuration asks for, or ours, which writes to folders below `output`.

    Raises what smdebug raises, and RuntimeError where it would have switched itself off silently.
    """
    if configuration:
        hook = Hook.create_from_json_file(str(configuration))
    else:
        hook = _default_hook(_fresh(output, FOLDER), _fresh(output, TENSORBOARD_FOLDER))
    if hook.is_ours:
        _complete(hook)
    if ErrorHandlingAgent.get_error_handling_agent().disable_smdebug:
        raise RuntimeError("smdebug has switched itself off; its error is in the job's log")
    return hook


class Hook(smd.Hook):
    """smdebug's hook, told of steps and tensors by hooks.py instead of by module hooks on every layer at every step.

    Its own take a gradient as it is computed, before it is averaged over processes, unscaled or clipped.
    """

    writer: Any
    prepared_collections: bool
    exported_collections: bool

    @functools.cached_property
    def _kept(self) -> dict[tuple[str, ...], _Kept]:
        return {}

    @property
    def is_ours(self) -> bool:
        """Whether it is the default or what PlanRun asked SageMaker for: nobody else knows of updates."""
        return UPDATES in self.include_collections

    def begin(self, mode: Any) -> None:
        """Begin a step of a mode: what was saved of the last one is written."""
        self._close_writers()
        if not self.prepared_collections:
            self._prepare_collections()
            self.prepared_collections = True
        self.set_mode(mode)
        self._increment_step()
        if self._get_collections_to_save_for_step():
            self._initialize_writers()
            self.last_saved_step = self.step
            if not self.exported_collections:
                self.export_collections()
                self.exported_collections = True

    def save_every(self, steps: int) -> None:
        """Save reductions every so many training steps, scalars more often; of evaluations all scalars and inputs."""
        often = max(1, steps // SCALARS_PER_SAVE)
        never = smd.SaveConfigMode(save_interval=1, start_step=0, end_step=0)
        always = smd.SaveConfigMode(save_interval=1)
        for interval, evaluations, names in (
            (steps, never, (*REDUCED, ACTIVITY)),
            (steps, always, (INPUTS,)),
            (often, always, (LOSSES, SCALARS)),
        ):
            training = smd.SaveConfigMode(save_interval=interval)
            for name in names:
                self.get_collection(name).save_config = smd.SaveConfig({modes.TRAIN: training, modes.EVAL: evaluations})

    def saves(self, *collections: str) -> bool:
        """Return whether the current step saves one of the collections."""
        return any(one.name in collections for one in self._get_collections_to_save_for_step())

    def save(self, name: str, tensor: Observed) -> list[tuple[str, Reductions | None]]:
        """Write a tensor if the step saves it; return collections with its reductions, None where it is kept whole."""
        due = self._get_collections_with_tensor(name) & self._get_collections_to_save_for_step()
        large = [one.name for one in due if one.name not in (LOSSES, SCALARS, *SMALL)]
        reduced, numbers = None, None
        if large and isinstance(tensor, torch.Tensor):
            kept = self._kept_of(name, due)
            reduced, numbers = reduce(tensor, kept.fields), kept.numbers
        if reduced and numbers and self.writer:
            self.writer.write_numbers(numbers, reduced, self.mode, self.mode_steps[self.mode])
            self._write_shape(name, tensor, due)
        elif due:
            self._write_for_tensor(name, tensor, due)
        return [(one.name, reduced if one.name in large else None) for one in due]

    def _kept_of(self, name: str, due: Any) -> _Kept:
        key = name, *sorted(one.name for one in due)
        if key not in self._kept:
            self._kept[key] = _Kept(name, [one for one in due if one.name not in (LOSSES, SCALARS, *SMALL)], len(due))
        return self._kept[key]

    def include_activations(self, names: list[str]) -> None:
        """Save the outputs of these layers, if activations are configured."""
        if self._should_collection_be_saved(ACTIVATIONS) and names:
            self.get_collection(ACTIVATIONS).include(names)
            self.exported_collections = False  # the next step that is saved says it again, with these

    def close(self) -> None:
        """Write what is left and the end marker."""
        self._cleanup()
        self._close_given_writer_map(self.tb_writers)

    def _close_writers(self) -> None:
        """Close the step's file, and leave TensorBoard's open: it would be one for each step."""
        if self.writer is not None:
            self.writer.close()
            self.writer = None

    def _initialize_writers(self, only_initialize_if_missing: bool = False) -> None:
        super()._initialize_writers(only_initialize_if_missing)
        if self.writer is not None and not isinstance(self.writer, _StepWriter):
            self.writer = _StepWriter(self.out_dir, self.worker, self.step)

    def _get_num_workers(self) -> int:
        """Return 1: of the processes of a distributed training, which hold the same weights, the first has hooks."""
        return 1

    def _get_worker_name(self) -> str:
        return self.chief_worker

    def _log_save(self, tensor_name: str, save_collections: Any) -> None:
        """Say nothing: smdebug words a line for each tensor, which its log then leaves out."""

    def _write_shape(self, name: str, tensor: Any, collections: Any, tensor_ref: Any = None) -> None:  # noqa: ARG002
        if self.writer and any(one.reduction_config.save_shape for one in collections):
            self.writer.write_shape(name, tuple(np.shape(tensor)), self.mode, self.mode_steps[self.mode])

    def _write_scalar_summary(self, name: str, tensor: Any, collections: Any) -> None:
        """Write a TensorBoard event over training steps: smdebug's own count evaluations too."""
        writer = self._maybe_get_tb_writer() if any(one.name in (LOSSES, SCALARS) for one in collections) else None
        if writer:
            writer.write_scalar_summary(name, self._make_numpy_array(tensor), self.mode_steps.get(modes.TRAIN, 0))

    @staticmethod
    def _make_numpy_array(tensor_value: Any) -> np.ndarray:
        if isinstance(tensor_value, torch.Tensor):
            detached = tensor_value.detach().cpu()
            return (detached.float() if detached.dtype == torch.bfloat16 else detached).numpy()
        return np.asarray(tensor_value)


class _StepWriter(FileWriter):
    """What writes a step's file: at once, where smdebug's own hands each tensor to a thread, which takes far longer."""

    index_writer: Any

    def __init__(self, folder: str, worker: str, step: int):
        super().__init__(trial_dir=folder, worker=worker, step=step)
        self._worker = worker
        self._events = EventsWriter(self.event_file_path)
        self._event_file = get_relative_event_file_path(self.event_file_path)
        self._number, self._tensor = (Event(wall_time=time.time(), step=step) for _ in range(2))
        self._number.summary.value.add().tensor.CopyFrom(TensorProto(dtype="DT_FLOAT"))
        self._tensor.summary.value.add()

    def write_numbers(self, numbers: Sequence[tuple[str, str]], reduced: Reductions, mode: Any, mode_step: int) -> None:
        """Append reductions, each under its name in the file."""
        value = self._number.summary.value[0]
        for name, field in numbers:
            value.tensor.tensor_content = struct.pack("<f", getattr(reduced, field))
            self._append(self._number, name, mode, mode_step)

    def write_tensor(
        self,
        tdata: Any,
        tname: str,
        write_index: bool = True,  # noqa: ARG002 - always
        mode: Any = modes.GLOBAL,
        mode_step: int | None = None,
        timestamp: float | None = None,  # noqa: ARG002 - the step's
    ) -> None:
        """Append a tensor to the step's file, and where it stands to the step's index."""
        self._tensor.summary.value[0].tensor.CopyFrom(make_tensor_proto(np.asarray(tdata), tname))
        self._append(self._tensor, tname, mode, mode_step)

    def _append(self, event: Any, name: str, mode: Any, mode_step: int | None) -> None:
        value = event.summary.value[0]
        value.tag = name
        if not value.HasField("metadata"):
            value.metadata.CopyFrom(self._get_metadata(mode, mode_step))
        start, length = self._events.write_event(event)
        place = TensorLocation(name, mode.name, mode_step, self._event_file, start, length, self._worker)
        self.index_writer.add_index(place)

    def close(self) -> None:
        """Close both files."""
        self._events.close()
        self.index_writer.close()


class _Kept:
    """What is kept of a tensor: fields in the rules' sight, and their names in the file where nothing else is saved."""

    fields: frozenset[str]
    numbers: tuple[tuple[str, str], ...] | None

    def __init__(self, name: str, large: Sequence[Any], collections: int):
        """large: its collections of reductions, of so many. What is saved whole is in the rules' sight wholly."""
        configs = [one.reduction_config for one in large]
        saved = [(one, False) for config in configs for one in (*config.reductions, *config.norms)]
        saved += [(one, True) for config in configs for one in (*config.abs_reductions, *config.abs_norms)]
        whole = any(config.save_raw_tensor for config in configs)
        self.fields = ALL_FIELDS if whole else frozenset(FIELDS[one] for one in saved if one in FIELDS)
        others = whole or any(one not in FIELDS for one in saved) or any(one.save_histogram for one in large)
        named = [(get_reduction_tensor_name(name, *one), FIELDS[one]) for one in dict.fromkeys(saved) if one in FIELDS]
        self.numbers = None if others or collections > len(large) else tuple(named)


def _default_hook(folder: Path, tensorboard: Path) -> Hook:
    hook = Hook(
        out_dir=str(folder),
        export_tensorboard=True,
        tensorboard_dir=str(tensorboard),
        include_collections=[one["CollectionName"] for one in SAVED_COLLECTIONS],
    )
    configured = {"CollectionConfigurations": SAVED_COLLECTIONS}
    add_collections_to_manager(hook.collection_manager, configured, collect_hook_config_params(configured))
    return hook


def _complete(hook: Hook) -> None:
    """Add to what ours saves what SageMaker's form of a configuration cannot say."""
    for name, ending in ((WEIGHTS, "weight"), (BIASES, "bias")):
        # In the place of smdebug's own pattern, which takes updates for weights.
        hook.get_collection(name).include_regex[0] = rf"^(?!gradient/|update/).*\.?{ending}$"
    for name in REDUCED:
        hook.get_collection(name).reduction_config.save_shape = True  # smdebug refuses a text, all values there are


def _fresh(output: Path, name: str) -> Path:
    """Return a folder that is not there yet, which smdebug wants: `name`, or with the first free number."""
    candidate, number = output / name, 2
    while candidate.exists():
        candidate, number = output / f"{name}-{number}", number + 1
    return candidate


class FolderTrial:
    """What hooks wrote to a folder, these or others of smdebug's: reductions, or whole tensors, which are reduced."""

    live = False
    phase_end: int | None = None
    valid_images: int | None = None
    logger = logging.getLogger(__name__)  # smdebug's Rule asks a trial for it

    def __init__(self, folder: Path):
        """Raises what smdebug raises where there is no such output; waits for nothing."""
        self._trial = create_trial(str(folder))
        self._trial.loaded_all_steps = True  # of a training that was killed, an end would be waited for without end
        self.names = self._trial.tensor_names()
        self._latest: tuple[int, SavedStep] | None = None
        self._training_step = self._phase_start = 0
        if VALID_IMAGES in self.names:
            counted = self._trial.tensor(VALID_IMAGES)
            self.valid_images = int(counted.value(counted.steps()[0]))

    @property
    def steps(self) -> list[int]:
        """Global steps, in order."""
        return self._trial.steps()

    def at(self, step: int) -> SavedStep:
        """Return what was saved at a global step; the latest is kept, as every rule asks for it."""
        if self._latest is None or self._latest[0] != step:
            self._latest = step, self._read(step)
        return self._latest[1]

    def _read(self, step: int) -> SavedStep:
        saved = SavedStep(self._trial.mode_step(step), self._trial.mode(step) != modes.EVAL)
        for collection in (LOSSES, SCALARS, *SMALL):
            for name in self._names(step, collection):
                saved.values.setdefault(collection, {})[name] = self._trial.tensor(name).value(step)
        for collection in REDUCED:
            for name in self._names(step, collection):
                saved.reductions.setdefault(collection, {})[name] = self._reductions(name, step)
        self._place(saved)
        return saved

    def _place(self, saved: SavedStep) -> None:
        """Say at which training step of which phase it was saved, as far as it holds that itself."""
        told = saved.scalar(INPUTS, TRAINING_STEP)
        if saved.training:
            self._training_step = saved.step
        elif told is not None:
            self._training_step = int(told)
        begun = saved.scalar(INPUTS, PHASE_START)
        self._phase_start = self._phase_start if begun is None else int(begun)
        saved.step, saved.phase_start = self._training_step, self._phase_start

    def _names(self, step: int, collection: str) -> list[str]:
        return self._trial.tensor_names(step=step, collection=collection)

    def _reductions(self, name: str, step: int) -> Reductions:
        tensor = self._trial.tensor(name)
        try:
            return reduce(torch.from_numpy(np.array(tensor.value(step), dtype=np.float32)))
        except TensorUnavailableForStep:  # only reductions were saved
            found = {FIELDS[key]: float(value) for key, value in tensor.reduction_values(step).items() if key in FIELDS}
        try:
            return Reductions(**found, dimensions=len(tensor.shape(step)))
        except ShapeUnavailableForStep:  # by others, who do not save it
            return Reductions(**found)
