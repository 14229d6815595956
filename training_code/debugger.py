"""Hooks by smdebug, SageMaker Debugger's library: the only module that imports it.

Losses, accuracy and learning rate, and reductions of weights, biases, gradients, updates and activations, in smdebug's
own format, which create_trial and others' tools read; losses, accuracy and learning rate as TensorBoard events too.
Configured by SageMaker's debughookconfig.json where the job has one. An evaluation is one step of mode EVAL.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import carried_smdebug  # noqa: F401 - makes smdebug importable
import numpy as np
import smdebug.pytorch as smd
import torch
from observations import Activations, Inputs, Observed, reduce
from saved import (
    ACCURACY,
    ACTIVATIONS,
    ACTIVITY,
    BIASES,
    GRADIENTS,
    INPUTS,
    LEARNING_RATE,
    LOSSES,
    SCALARS,
    UPDATES,
    VALID_IMAGES,
    WEIGHTS,
    Reductions,
    SavedStep,
)
from smdebug.core.error_handling_agent import ErrorHandlingAgent
from smdebug.core.reductions import get_reduction_tensor_name
from smdebug.exceptions import TensorUnavailableForStep
from smdebug.rules.rule import Rule
from smdebug.trials import create_trial
from torch import nn

__all__ = ["FolderTrial", "Hooks", "LiveTrial", "Rule", "create_trial", "modes"]

modes = smd.modes
FOLDER, TENSORBOARD_FOLDER = "smdebug", "tensorboard"
SAVES = 25
"""At most, of every tensor in a training, unless an interval is given: a short one is to have enough of them too."""
SCALARS_PER_SAVE = 4  # a loss is one number: it is saved more often than the reductions of every weight
QUEUE = 1 << 20
"""Events that wait for smdebug's writing thread: its own 10 would make a save wait for the thread a hundred times."""

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


class LiveTrial:
    """The step that is being saved, as rules see it while the training runs."""

    total_steps: int | None = None
    valid_images: int | None = None
    logger = logging.getLogger(__name__)  # smdebug's Rule asks a trial for it

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.current = SavedStep(0, True)

    def at(self, step: int) -> SavedStep:
        """Return the step that was saved last, which is the only one kept: `step` must be it."""
        if step != self.current.step:
            raise KeyError(f"step {step} is not kept, only {self.current.step}")
        return self.current


class FolderTrial:
    """What hooks wrote to a folder, these or others of smdebug's: reductions, or whole tensors, which are reduced."""

    total_steps: int | None = None
    valid_images: int | None = None
    logger = logging.getLogger(__name__)  # smdebug's Rule asks a trial for it

    def __init__(self, folder: Path):
        """Raises what smdebug raises where there is no such output; waits for nothing."""
        self._trial = create_trial(str(folder))
        self._trial.loaded_all_steps = True  # of a training that was killed, an end would be waited for without end
        self.names = self._trial.tensor_names()
        self._latest: tuple[int, SavedStep] | None = None
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
        return saved

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
        except TensorUnavailableForStep:
            return Reductions(**found)


class Hooks:
    """smdebug's hook on trainings of networks, one after the other. Trouble in it is noted and ends it, no training."""

    def __init__(self, output: Path, save_interval_steps: int, configuration: Path | None):
        """Set up. save_interval_steps: 0 for SAVES saves of each network.

        Raises what smdebug raises, and RuntimeError where it would have switched itself off silently.
        """
        if configuration:
            self._hook = _Hook.create_from_json_file(str(configuration))
        else:
            self._hook = _default_hook(_fresh(output, FOLDER), _fresh(output, TENSORBOARD_FOLDER))
        if ErrorHandlingAgent.get_error_handling_agent().disable_smdebug:
            raise RuntimeError("smdebug has switched itself off; its error is in the job's log")
        folder = Path(self._hook.out_dir)
        self.tensors = folder.name if folder.parent == output else str(folder)
        self._configured = configuration is not None
        self._save_interval_steps = save_interval_steps
        self.trouble: str | None = None
        self.seconds = 0.0
        self.trial = LiveTrial()
        self._inputs = Inputs()
        self._registered: list[Any] = []
        self._closed = False

    @property
    def steps(self) -> int:
        """Training steps that the hooks saw."""
        return self._hook.mode_steps.get(modes.TRAIN, -1) + 1

    def start(self, network: nn.Module, criterion: nn.Module, total_steps: int, images: int) -> None:
        """Watch a network and its loss, and no others any more, for so many steps, validated on so many images."""
        while self._registered:
            self._registered.pop().remove()
        if not self._configured:
            self._hook.save_every(self._save_interval_steps or -(-total_steps // SAVES))
        self.trial.total_steps = self.steps + total_steps
        self.trial.valid_images = images
        self._guarded(self._register, network, criterion)

    def mode(self, training: bool) -> None:
        """Say whether the next forward passes train or validate."""
        if not training:
            self._inputs.evaluate()
        self._training = training

    def before_update(self) -> None:
        """Save the gradients, which are final now: averaged over processes, unscaled, clipped."""
        self._guarded(self._before_update)

    def after_update(self) -> None:
        """Save what the optimiser has added to the weights."""
        self._guarded(self._after_update)

    def step(self, loss: float, accuracy: float, learning_rate: float) -> int | None:
        """End a training step; return its number if it was saved."""
        return self._end(modes.TRAIN, {ACCURACY: accuracy, LEARNING_RATE: learning_rate}, loss)

    def evaluated(self, loss: float, accuracy: float) -> int | None:
        """Save an evaluation; return the number of its step."""
        self._guarded(self._begin, modes.EVAL)
        return self._end(modes.EVAL, {ACCURACY: accuracy}, loss)

    def close(self) -> None:
        """Write what is left and the end marker."""
        if not self._closed:
            self._closed = True
            while self._registered:
                self._registered.pop().remove()
            self._guarded(self._hook.close)
            if not self.trouble and not self.trial.names:
                self.trouble = "the hooks wrote no tensor"

    def _register(self, network: nn.Module, criterion: nn.Module) -> None:
        self._prefix = network._get_name()
        self._loss_name = f"{criterion._get_name()}_output_0"
        trained = [(name, one) for name, one in network.named_parameters() if one.requires_grad]
        self._trained = [(f"{self._prefix}_{name}", parameter) for name, parameter in trained]
        self._inputs.begin()
        self._activations = Activations(network, lambda *seen: self._guarded(self._save, *seen))
        self._training, self._began = True, False
        self._before: list[torch.Tensor] = []
        self._hook.include_activations(self._activations.patterns)
        self._registered = [
            network.register_forward_pre_hook(lambda _, inputs: self._guarded(self._forward, inputs)),
            criterion.register_forward_hook(lambda _, inputs, __: self._guarded(self._inputs.answered, *inputs[:2])),
        ]

    def _forward(self, inputs: Any) -> None:
        self._inputs.seen(inputs[0])
        if self._training and not self._began:
            self._began = True
            self._begin(modes.TRAIN)

    def _begin(self, mode: Any) -> None:
        self._hook.begin(mode)
        self.trial.current = SavedStep(self._hook.mode_steps[mode], mode == modes.TRAIN)
        if self._hook.saves(WEIGHTS, BIASES):
            for name, parameter in self._trained:
                self._save(name, parameter)
        if self._hook.saves(ACTIVATIONS, ACTIVITY):
            self._activations.attach()

    def _before_update(self) -> None:
        if self._hook.saves(GRADIENTS):
            for name, parameter in self._trained:
                if parameter.grad is not None:
                    self._save(f"gradient/{name}", parameter.grad)
        if self._hook.saves(UPDATES):
            if not self._before:  # kept from save to save: asking the system for as much again takes longer than a copy
                self._before = [torch.empty_like(parameter) for _, parameter in self._trained]
            torch._foreach_copy_(self._before, [parameter.detach() for _, parameter in self._trained])

    def _after_update(self) -> None:
        if self._hook.saves(UPDATES):
            torch._foreach_neg_(self._before)
            torch._foreach_add_(self._before, [parameter.detach() for _, parameter in self._trained])
            for (name, _), change in zip(self._trained, self._before, strict=True):
                self._save(f"update/{name}", change)

    def _end(self, mode: Any, scalars: dict[str, float], loss: float) -> int | None:
        started = time.perf_counter()
        self._guarded(self._save_small, mode, scalars, loss)
        self._began = False
        self.seconds += time.perf_counter() - started
        current = self.trial.current
        return current.step if not self.trouble and (current.values or current.reductions) else None

    def _save_small(self, mode: Any, scalars: dict[str, float], loss: float) -> None:
        self._save(self._loss_name, np.float32(loss))
        for name, value in scalars.items():
            self._save(name, np.float32(value))
        self._activations.detach()
        if self._hook.saves(INPUTS):
            observed = self._inputs.of_training() if mode == modes.TRAIN else self._inputs.of_evaluation()
            for name, tensor in observed.items():
                self._save(name, tensor)

    def _save(self, name: str, tensor: Observed) -> None:
        for collection, reductions in self._hook.save(name, tensor):
            self.trial.names.add(name)
            if reductions is None:
                value = tensor.detach().cpu().numpy() if isinstance(tensor, torch.Tensor) else np.asarray(tensor)
                self.trial.current.values.setdefault(collection, {})[name] = value
            else:
                self.trial.current.reductions.setdefault(collection, {})[name] = reductions

    def _guarded(self, work: Callable[..., None], *arguments: Any) -> None:
        if self.trouble:
            return
        started = time.perf_counter()
        try:
            work(*arguments)
        except Exception as error:  # noqa: BLE001 - whatever smdebug raises is the finding
            self.trouble = f"the hooks failed at step {self.steps - 1}: {type(error).__name__}: {error}"
            self._activations.detach()
        self.seconds += time.perf_counter() - started


class _Hook(smd.Hook):
    """smdebug's hook, told of steps and tensors by Hooks instead of by module hooks on every layer at every step.

    Its own take a gradient as it is computed, before it is averaged over processes, unscaled or clipped.
    """

    writer: Any
    prepared_collections: bool
    exported_collections: bool
    _reduced: Reductions

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
        large: list[Any] = [one for one in due if one.name not in (LOSSES, SCALARS, *SMALL)]
        if large and isinstance(tensor, torch.Tensor):
            self._reduced = reduce(tensor, absolute=any(one.name == GRADIENTS for one in large))
        if due:
            self._write_for_tensor(name, tensor, due)
        return [(one.name, self._reduced if one in large else None) for one in due]

    def include_activations(self, names: list[str]) -> None:
        """Save the outputs of these layers, if activations are configured."""
        if self._should_collection_be_saved(ACTIVATIONS) and names:
            self.get_collection(ACTIVATIONS).include(names)

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
        if self.writer is not None:
            self.writer.max_queue = QUEUE  # read when the file is opened, at the first event

    def _get_num_workers(self) -> int:
        """Return 1: of the processes of a distributed training, which hold the same weights, the first has hooks."""
        return 1

    def _get_worker_name(self) -> str:
        return self.chief_worker

    def _log_save(self, tensor_name: str, save_collections: Any) -> None:
        """Say nothing: smdebug words a line for each tensor, which its log then leaves out."""

    def _write_reduction(
        self, tensor_name: str, tensor_value: Any, reduction_name: str, abs: bool, tensor_ref: Any = None
    ) -> None:
        field = FIELDS.get((reduction_name, abs))
        known = getattr(self._reduced, field) if field else None
        if known is None or self.writer is None:
            super()._write_reduction(tensor_name, tensor_value, reduction_name, abs, tensor_ref)
        else:
            name = _reduction_name(tensor_name, reduction_name, abs)
            self.writer.write_tensor(
                np.asarray(known, np.float32), name, mode=self.mode, mode_step=self.mode_steps[self.mode]
            )

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


@functools.cache
def _reduction_name(tensor_name: str, reduction_name: str, absolute: bool) -> str:
    return get_reduction_tensor_name(tensor_name, reduction_name, absolute)


def _default_hook(folder: Path, tensorboard: Path) -> _Hook:
    hook = _Hook(
        out_dir=str(folder),
        export_tensorboard=True,
        tensorboard_dir=str(tensorboard),
        include_collections=[LOSSES, SCALARS, *REDUCED, *SMALL],
    )
    for name, reductions in (
        (WEIGHTS, {"reductions": ["min", "max", "mean", "variance"], "norms": ["l2"]}),
        (BIASES, {"reductions": ["min", "max", "mean"]}),
        (GRADIENTS, {"reductions": ["min", "max"], "abs_reductions": ["mean"], "norms": ["l2"]}),
        (UPDATES, {"reductions": ["min", "max"], "norms": ["l2"]}),
        (ACTIVATIONS, {"reductions": ["min", "max", "mean"]}),
    ):
        hook.get_collection(name).reduction_config = smd.ReductionConfig(save_shape=True, **reductions)
    for name in (LOSSES, SCALARS, *SMALL):
        hook.get_collection(name).reduction_config = smd.ReductionConfig(save_raw_tensor=True)
    hook.get_collection(WEIGHTS).include_regex = [r"^(?!gradient/|update/).*\.?weight$"]
    hook.get_collection(BIASES).include_regex = [r"^(?!gradient/|update/).*\.?bias$"]
    for name, pattern in ((UPDATES, "^update/"), (SCALARS, "^scalar/"), (ACTIVITY, "_activity$"), (INPUTS, "^inputs/")):
        hook.get_collection(name).include(pattern)
    for collection in hook.get_collections().values():
        collection.save_histogram = False
    return hook


def _fresh(output: Path, name: str) -> Path:
    """Return a folder that is not there yet, which smdebug wants: `name`, or with the first free number."""
    candidate, number = output / name, 2
    while candidate.exists():
        candidate, number = output / f"{name}-{number}", number + 1
    return candidate
