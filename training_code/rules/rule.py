"""What every rule is: a smdebug Rule that is shown each saved step and comes to one finding.

Names, parameters and defaults are those of AWS's "List of Debugger built-in rules"
(https://docs.aws.amazon.com/sagemaker/latest/dg/debugger-built-in-rules.html) unless a rule says otherwise. AWS's own
code is not public. "Steps" of a parameter are saved steps, as they are there: of losses, those that save losses. Where
AWS's words would find fault with a training that went well, a rule asks for more, and says what. Its parameters that
choose tensors, or say what is in them (collection_names, tensor_regex, mode, channel, argmax and others), have no place
here: hooks and rules agree on names (saved.py). Where another one is left out, a docstring says why.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

from debugger import Rule
from findings import Finding, Value, make_finding
from saved import SavedStep


class ReviewRule(Rule):
    """A rule that is shown every saved step in order and then asked for its finding.

    `finding` is set as soon as nothing that follows could take it back: a live training may be stopped for it.
    """

    finding: Finding | None = None
    needs: ClassVar[str]
    """What it judges by, in words."""
    seen: bool = False
    """Whether it was shown enough of that to judge: `look` says so."""

    def __init__(self, trial: Any, **parameters: float | str | bool):
        super().__init__(trial, action_str="")
        self.parameters = parameters

    def invoke_at_step(self, step: int) -> bool:
        """Look at a global step; return whether the rule's condition has been met for good."""
        if self.finding is None:
            self.look(self.base_trial.at(step))
        return self.finding is not None

    @abstractmethod
    def look(self, saved: SavedStep) -> None:
        """Take in a saved step."""

    def settle(self, finding: Finding) -> None:
        """Come to a finding that stays: the first of a step's."""
        self.finding = self.finding or finding

    def conclude(self) -> Finding:
        """Return the finding on all that was seen, or that there was nothing to see."""
        if self.finding:
            return self.finding
        return self.verdict() if self.seen else self.nothing(f"Saw no {self.needs}: nothing could be judged.")

    @abstractmethod
    def verdict(self) -> Finding:
        """Return the finding on all that was seen, where none has come to stay."""

    def issue(self, message: str, step: int | None = None, tensor: str | None = None, **values: Value) -> Finding:
        """Return a finding IssuesFound."""
        return self._describe("IssuesFound", message, step, tensor, values)

    def nothing(self, message: str, **values: Value) -> Finding:
        """Return a finding NoIssuesFound."""
        return self._describe("NoIssuesFound", message, None, None, values)

    def failed(self, error: Exception) -> Finding:
        """Return a finding Error."""
        return self._describe("Error", f"the rule failed: {type(error).__name__}: {error}", None, None, {})

    def _describe(
        self, status: str, message: str, step: int | None, tensor: str | None, values: dict[str, Value]
    ) -> Finding:
        name = type(self).__name__
        return make_finding(name, status, message, step=step, tensor=tensor, values=values, parameters=self.parameters)
