"""AdamW, as torch.optim has it: the same numbers, without the two seconds that its first step takes to start.

torch.optim imports the whole of PyTorch's compiler when the first optimizer is built, which is most of what a trial on
frozen features would wait for. Here is only the fused kernel that torch.optim.AdamW(fused=True) calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

BETAS = 0.9, 0.999


@dataclass(frozen=True)
class Group:
    """Parameters that share a learning rate, which a schedule multiplies, and a weight decay."""

    parameters: Sequence[torch.nn.Parameter]
    learning_rate: float
    weight_decay: float


class AdamW:
    """Loshchilov and Hutter 2019, Decoupled Weight Decay Regularization."""

    def __init__(self, groups: Sequence[Group], eps: float):
        self._groups = groups
        self._eps = eps
        parameters = [parameter for group in groups for parameter in group.parameters]
        self._average = {parameter: torch.zeros_like(parameter) for parameter in parameters}
        self._square = {parameter: torch.zeros_like(parameter) for parameter in parameters}
        self._steps = {parameter: torch.zeros((), device=parameter.device) for parameter in parameters}

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self._steps:
            parameter.grad = None

    @torch.no_grad()
    def step(self, share: float) -> None:
        """Take a step, at this share of each group's learning rate. Parameters without a gradient stay."""
        for group in self._groups:
            taken = [parameter for parameter in group.parameters if parameter.grad is not None]
            if not taken:
                continue
            steps = [self._steps[parameter] for parameter in taken]
            torch._foreach_add_(steps, 1)
            torch._fused_adamw_(
                taken,
                [parameter.grad for parameter in taken],
                [self._average[parameter] for parameter in taken],
                [self._square[parameter] for parameter in taken],
                [],
                steps,
                lr=group.learning_rate * share,
                beta1=BETAS[0],
                beta2=BETAS[1],
                weight_decay=group.weight_decay,
                eps=self._eps,
                amsgrad=False,
                maximize=False,
            )

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint needs, in the order of the parameters."""
        return {
            name: [state[parameter] for parameter in self._steps]
            for name, state in (("average", self._average), ("square", self._square), ("steps", self._steps))
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        for name, own in (("average", self._average), ("square", self._square), ("steps", self._steps)):
            for parameter, saved in zip(self._steps, state[name], strict=True):
                own[parameter].copy_(saved)
