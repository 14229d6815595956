"""Rules that look at what goes into the network: images and labels."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import numpy as np
from findings import Finding
from saved import (
    ACCURACY,
    CHANNEL_MAX,
    CHANNEL_MEAN,
    CHANNEL_MIN,
    INPUTS,
    LABEL_COUNTS,
    RIGHT_COUNTS,
    SCALARS,
    SEPARATION,
    SavedStep,
)

from rules.rule import ReviewRule


class ClassImbalance(ReviewRule):
    """The most frequent label comes threshold_imbalance times as often as the rarest, or a rare one is not learned.

    Judged once samples labels were seen; the ratio must exceed the threshold by two standard errors of both counts,
    which few images of many classes would exceed by chance. Not learned: a label that comes less than half as often as
    the mean is mistaken for others in more than threshold_misprediction of the latest samples, by two standard errors
    too, while of all labels at most half as many are: before that, a network knows little of any.
    """

    needs = "labels"

    def __init__(
        self,
        trial: Any,
        threshold_imbalance: float = 10.0,
        threshold_misprediction: float = 0.7,
        samples: int = 500,
    ):
        super().__init__(
            trial,
            threshold_imbalance=threshold_imbalance,
            threshold_misprediction=threshold_misprediction,
            samples=samples,
        )
        self._threshold, self._misprediction, self._samples = threshold_imbalance, threshold_misprediction, samples
        self._seen: deque[tuple[int, np.ndarray, np.ndarray]] = deque()

    def look(self, saved: SavedStep) -> None:
        values = saved.values.get(INPUTS, {})
        if LABEL_COUNTS in values and RIGHT_COUNTS in values:
            self.seen = True
            self._seen.append((saved.step, values[LABEL_COUNTS], values[RIGHT_COUNTS]))
            latest = self._seen[-1][1].sum()
            while len(self._seen) > 2 and latest - self._seen[1][1].sum() >= self._samples:
                self._seen.popleft()
            if latest >= self._samples:
                self._weigh_up(saved.step, values[LABEL_COUNTS])

    def verdict(self) -> Finding:
        if self._seen[-1][1].sum() < self._samples:
            return self.nothing(f"Too few labels to judge: {self._samples} are needed.")
        step, counts, right = self._seen[-1]
        ratio = float(counts.max() / max(counts.min(), 1))
        return self._mistaken(step, counts, right) or self.nothing("The classes come often enough.", ratio=ratio)

    def _weigh_up(self, step: int, counts: np.ndarray) -> None:
        """Come to an issue that stays if one label is surely too rare: no training changes how often labels come."""
        most, fewest = int(counts.argmax()), int(counts.argmin())
        surely = (counts[most] - 2 * math.sqrt(counts[most])) / (counts[fewest] + 2 * math.sqrt(counts[fewest]) + 1)
        if surely > self._threshold:
            ratio = float(counts[most] / max(counts[fewest], 1))
            message = (
                f"Class {most} came {counts[most]:.0f} times and class {fewest} {counts[fewest]:.0f} times: collect "
                "images of the rare class, or weigh or repeat them."
            )
            self.settle(self.issue(message, step, LABEL_COUNTS, ratio=ratio, samples=float(counts.sum())))

    def _mistaken(self, step: int, counts: np.ndarray, right: np.ndarray) -> Finding | None:
        counts, right = counts - self._seen[0][1], right - self._seen[0][2]
        if counts.sum() < self._samples or right.sum() < counts.sum() * (1 - self._misprediction / 2):
            return None
        for label in np.flatnonzero((counts < counts.mean() / 2) & (counts >= 10)):
            wrong = 1 - right[label] / counts[label]
            if wrong - 2 * math.sqrt(wrong * (1 - wrong) / counts[label]) > self._misprediction:
                message = (
                    f"Class {label} is rare and mistaken for another in {wrong:.0%} of the latest images: collect more "
                    "of them, or weigh or repeat them."
                )
                return self.issue(message, step, RIGHT_COUNTS, misprediction=float(wrong), label=float(label))
        return None


class CheckInputImages(ReviewRule):
    """A channel of the images is not normalised: its mean is off 0 by threshold_mean, and its range says so.

    Judged once threshold_samples images were seen, and for good once BATCHES batches of them were looked at: each
    further one is made as they were. AWS's rule knows the mean alone, which is off for photographs on white as for
    figures on black; so this one also asks that a channel is never negative, or goes beyond 10.
    """

    FURTHEST = 10.0
    BATCHES = 5
    needs = "images, but features"

    def __init__(self, trial: Any, threshold_mean: float = 0.2, threshold_samples: int = 500):
        super().__init__(trial, threshold_mean=threshold_mean, threshold_samples=threshold_samples)
        self._threshold, self._samples = threshold_mean, threshold_samples
        self._means: list[np.ndarray] = []
        self._low, self._high = np.array(math.inf), np.array(-math.inf)
        self._images = 0.0
        self._step = 0

    def look(self, saved: SavedStep) -> None:
        values = saved.values.get(INPUTS, {})
        if LABEL_COUNTS in values:
            self._images, self._step = float(values[LABEL_COUNTS].sum()), saved.step
        if CHANNEL_MEAN in values:
            self.seen = True
            self._means.append(values[CHANNEL_MEAN])
            self._low = np.minimum(self._low, values[CHANNEL_MIN])
            self._high = np.maximum(self._high, values[CHANNEL_MAX])
            strange = self._strange()
            if strange and len(self._means) >= self.BATCHES:
                self.settle(strange)

    def verdict(self) -> Finding:
        if self._images < self._samples:
            return self.nothing(f"Too few images to judge: {self._images:.0f} of {self._samples}.")
        return self._strange() or self.nothing("The images are normalised.", mean=float(np.mean(self._means)))

    def _strange(self) -> Finding | None:
        """Return what is strange about a channel, if enough images were seen to say so."""
        means = np.mean(self._means, axis=0)
        strange = (np.abs(means) > self._threshold) & ((self._low >= 0) | (self._high > self.FURTHEST))
        if self._images < self._samples or not strange.any():
            return None
        channel = int(strange.argmax())
        message = (
            f"Channel {channel} of the images has a mean of {means[channel]:.3g} and goes from "
            f"{self._low[channel]:.3g} to {self._high[channel]:.3g}: subtract the mean and divide by the standard "
            "deviation of what the network was trained on."
        )
        return self.issue(message, self._step, CHANNEL_MEAN, channel=float(channel), mean=float(means[channel]))


class ShuffledLabels(ReviewRule):
    """The training images are learned, and the validation images guessed: their labels have nothing to do with them.

    Kelpie's own. At the last `evaluations` evaluations, training accuracy is more than margin above the share of the
    commonest label, and validation accuracy within two standard errors of it.
    """

    needs = "accuracies of both splits with the labels' counts"

    def __init__(self, trial: Any, evaluations: int = 3, margin: float = 0.2):
        super().__init__(trial, evaluations=evaluations, margin=margin)
        self._evaluations, self._margin = evaluations, margin
        self._training: list[float] = []
        self._learned = 0.0
        self._majority: float | None = None
        self._in_a_row = 0
        self._latest: Finding | None = None

    def look(self, saved: SavedStep) -> None:
        accuracy = saved.scalar(SCALARS, ACCURACY)
        counts = saved.values.get(INPUTS, {}).get(LABEL_COUNTS)
        if counts is not None:
            self._majority = float(counts.max() / counts.sum())
        if accuracy is None or self._majority is None:
            return
        if saved.training:
            self._training.append(accuracy)
            return
        if self._training:  # else none was saved since the last evaluation, as in a long training: that mean stays
            self._learned, self.seen = sum(self._training) / len(self._training), True
        self._training = []
        images = self.base_trial.valid_images or 1000
        chance = self._majority + 2 * math.sqrt(self._majority * (1 - self._majority) / images)
        guessed = self._learned > self._majority + self._margin and accuracy <= chance
        self._in_a_row = self._in_a_row + 1 if guessed else 0
        self._latest = None
        if self._in_a_row >= self._evaluations:
            message = (
                f"Training accuracy is {self._learned:.2f}, but validation accuracy is {accuracy:.2f}, as by guessing: "
                "look at whether the labels of both splits belong to their images."
            )
            self._latest = self.issue(message, saved.step, None, train_accuracy=self._learned, valid_accuracy=accuracy)
            if self._in_a_row >= 2 * self._evaluations:
                self.settle(self._latest)

    def verdict(self) -> Finding:
        return self._latest or self.nothing("What is learned from one split holds in the other.")


class LeakingLabels(ReviewRule):
    """A single spot of the validation images, or a single feature, tells the class.

    Kelpie's own. Of each cell of a 32 by 32 grid, or of each feature, the share of its variance that lies between
    classes, corrected for their number (epsilon squared, Kelley 1935): above threshold, a mark in the picture stands
    for the label.
    """

    needs = "validation images, or too few"

    def __init__(self, trial: Any, threshold: float = 0.99):
        super().__init__(trial, threshold=threshold)
        self._threshold = threshold
        self._highest = 0.0

    def look(self, saved: SavedStep) -> None:
        separation = saved.scalar(INPUTS, SEPARATION)
        if separation is not None:
            self.seen, self._highest = True, separation
            if separation > self._threshold:
                message = (
                    f"{separation:.1%} of what one spot of the images varies by depends on the class alone: a mark, a "
                    "frame or a stamp gives the label away. Remove it."
                )
                self.settle(self.issue(message, saved.step, SEPARATION, separation=separation))

    def verdict(self) -> Finding:
        return self.nothing("No single spot tells the class.", separation=self._highest)
