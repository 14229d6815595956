"""What of a training is hooked and when: the network's tensors in the steps that are saved, and nothing in the others.

Losses, accuracy and learning rate, and reductions of weights, biases, gradients, updates and activations. What is saved
is written by smdebug (debugger.py), and shown to the rules as it is. An evaluation is one step of mode EVAL.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from debugger import modes, open_hook
from observations import Activations, Inputs, Observed
from saved import (
    ACCURACY,
    ACTIVATIONS,
    ACTIVITY,
    BIASES,
    GRADIENTS,
    INPUTS,
    LEARNING_RATE,
    PHASE_START,
    PLAIN_LOSS,
    TRAINING_STEP,
    UPDATES,
    VALID_IMAGES,
    WEIGHTS,
    SavedStep,
)
from torch import nn

SAVES = 25
"""At most, of every tensor in a training, unless an interval is given: a short one is to have enough of them too."""
IMAGES = 16
"""Of a batch, whose feature maps are reduced: all of them would take longer than all else that a save reduces."""


class Hooks:
    """smdebug's hook on trainings of networks, one after the other. Trouble in it is noted and ends it, no training."""

    def __init__(self, output: Path, save_interval_steps: int, configuration: Path | None):
        """Set up. save_interval_steps: 0 for SAVES saves of each network.

        Raises what smdebug raises, and RuntimeError where it would have switched itself off silently.
        """
        self._hook = open_hook(output, configuration)
        folder = Path(self._hook.out_dir)
        self.tensors = folder.name if folder.parent == output else str(folder)
        self._save_interval_steps = save_interval_steps
        self.trouble: str | None = None
        self.seconds = 0.0
        self.trial = LiveTrial()
        self._inputs = Inputs()
        self._registered: list[Any] = []
        self._closed = False

    @property
    def steps(self) -> int:
        """Training steps so far."""
        return self._hook.mode_steps.get(modes.TRAIN, -1) + 1

    def start(self, network: nn.Module, criterion: nn.Module, steps: range, done: int, images: int) -> None:
        """Watch a network and its loss, and no others any more, validated on so many images.

        steps: of the whole training, of which so many were done before a training went on from a checkpoint.
        """
        while self._registered:
            self._registered.pop().remove()
        if self._hook.is_ours:
            self._hook.save_every(self._save_interval_steps or -(-len(steps) // SAVES))
        self._hook.mode_steps[modes.TRAIN] = steps.start + done - 1
        self._phase_start, self.trial.phase_end = steps.start, steps.stop
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

    def step(self, loss: float, plain_loss: float, accuracy: float, learning_rate: float) -> int | None:
        """End a training step; return its number if it was saved."""
        scalars = {PLAIN_LOSS: plain_loss, ACCURACY: accuracy, LEARNING_RATE: learning_rate}
        return self._end(modes.TRAIN, scalars, loss)

    def evaluated(self, loss: float, accuracy: float) -> int | None:
        """Save an evaluation; return the number of the last training step."""
        self._guarded(self._begin, modes.EVAL)
        return self._end(modes.EVAL, {ACCURACY: accuracy}, loss)

    def close(self) -> None:
        """Write what is left and the end marker."""
        if not self._closed:
            self._closed = True
            while self._registered:
                self._registered.pop().remove()
            self._guarded(self._hook.close)

    def _register(self, network: nn.Module, criterion: nn.Module) -> None:
        self._prefix = network._get_name()
        self._loss_name = f"{criterion._get_name()}_output_0"
        trained = [(name, one) for name, one in network.named_parameters() if one.requires_grad]
        self._trained = [(f"{self._prefix}_{name}", parameter) for name, parameter in trained]
        self._inputs.begin()
        images = IMAGES if self._hook.is_ours else None
        self._activations = Activations(network, lambda *seen: self._guarded(self._save, *seen), images)
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
        self.trial.current = SavedStep(self.steps - 1, mode == modes.TRAIN, self._phase_start)
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
            for (name, parameter), before in zip(self._trained, self._before, strict=True):
                self._save(f"update/{name}", torch.sub(parameter.detach(), before, out=before))

    def _end(self, mode: Any, scalars: dict[str, float], loss: float) -> int | None:
        self._guarded(self._save_small, mode, scalars, loss)
        self._began = False
        current = self.trial.current
        return current.step if not self.trouble and (current.values or current.reductions) else None

    def _save_small(self, mode: Any, scalars: dict[str, float], loss: float) -> None:
        self._save(self._loss_name, np.float32(loss))
        self._save(PHASE_START, np.float32(self._phase_start))
        for name, value in scalars.items():
            self._save(name, np.float32(value))
        self._activations.detach()
        if self._hook.saves(INPUTS):
            if mode == modes.TRAIN:
                observed = self._inputs.of_training()
            else:
                observed = {
                    VALID_IMAGES: np.float32(self.trial.valid_images or 0),  # this process sees its share of them
                    TRAINING_STEP: np.float32(self.steps - 1),
                    **self._inputs.of_evaluation(),
                }
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
        started, threads = time.perf_counter(), torch.get_num_threads()
        # Reductions wait for memory, not for a core, and on a shared machine a second thread has to be waited for.
        torch.set_num_threads(1)
        try:
            work(*arguments)
        except Exception as error:  # noqa: BLE001 - whatever smdebug raises is the finding
            self.trouble = f"the hooks failed at step {self.steps - 1}: {type(error).__name__}: {error}"
            self._activations.detach()
        finally:
            torch.set_num_threads(threads)
        self.seconds += time.perf_counter() - started


class LiveTrial:
    """The step that is being saved, as rules see it while the training runs."""

    live = True
    phase_end: int | None = None
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
