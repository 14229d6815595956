"""A run that never was: its documents and pictures, made from a seed, and what its history and log would tell.

Every document is held against its contract before it is put, so the page is drawn from what a run may really leave.
"""

import hashlib
import io
import json
import math
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fastjsonschema
from PIL import Image, ImageDraw

ROOT = Path(__file__).parents[2]
BUCKET = "kelpie-123456789012-eu-west-1"
CHAMPION = "0123456789ab"
"""The run whose model serves."""
SAMPLES = 3
"""Pictures a class."""
DIGITS = [f"digit-{digit}" for digit in range(10)]
HOSTILE = "<script>alert(1)</script><img src=http://x.example/ onerror=alert(2)>&'\"\\ ${7*7} {{7*7}} ]]>"


@dataclass
class ExampleRun:
    """What one run left. `put` puts it into a bucket; example_services.py answers for the rest of AWS."""

    name: str
    classes: list[str]
    trials: int = 4
    images_per_class: int = 36
    accuracy: float = 0.94
    path: list[tuple[str, float]] = field(default_factory=list)
    """(state, seconds) in the order in which they were entered."""
    failures: dict[str, str] = field(default_factory=dict)
    """The error with which a state's last task failed."""
    retried: dict[str, str] = field(default_factory=dict)
    """An error that a state's task failed with before it was tried again."""
    failure: dict[str, str] | None = None
    """What the state machine tells WriteReport."""
    log: list[str] = field(default_factory=list)
    documents: dict[str, Any] = field(default_factory=dict)
    """By URI."""
    pictures: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self):
        self.execution_arn = f"arn:aws:states:eu-west-1:123456789012:execution:kelpie-train-and-deploy:{self.name}"
        self.run_id = hashlib.sha256(self.execution_arn.encode()).hexdigest()[:12]
        self.random = random.Random(self.name)
        self.plan = self._plan()

    def put(self, s3: Any) -> None:
        for uri, document in self.documents.items():
            _put(s3, uri, json.dumps(document).encode())
        for uri, content in self.pictures.items():
            _put(s3, uri, content)

    def add(self, contract: str, document: dict[str, Any], uri: str | None = None) -> None:
        """Take a document that the run left. Raises fastjsonschema's error if it breaks its contract."""
        schema = json.loads((ROOT / "contracts" / f"{contract}.schema.json").read_text())
        fastjsonschema.validate(schema, document)
        self.documents[uri or f"s3://{BUCKET}/runs/{self.run_id}/{contract}.json"] = document

    def _plan(self) -> dict[str, Any]:
        text = (ROOT / "contracts" / "examples" / "plan.json").read_text().replace("3f2a9c0d1e4b", self.run_id)
        plan = json.loads(text)
        plan["execution_arn"] = self.execution_arn
        plan["dataset"]["classes"] = self.classes
        shares = {"train": 1.0, "valid": 0.25, "test": 0.25}
        for split, share in shares.items():
            counts = {
                label: max(1, int(self.images_per_class * share * self.random.uniform(0.6, 1.4)))
                for label in self.classes
            }
            plan["dataset"]["splits"][split] = {"images": sum(counts.values()), "images_by_class": counts}
        plan["input"] |= {
            "model": {"architecture": "resnet18", "weights": "default", "image_size_px": 224},
            "gate": {"max_regression": 0.05},
        }
        return plan

    def counts(self, split: str) -> dict[str, int]:
        counts: dict[str, int] = self.plan["dataset"]["splits"][split]["images_by_class"]
        return counts

    def add_plan(self) -> None:
        self.add("plan", self.plan)

    def add_manifest(self) -> None:
        given = example("manifest")
        splits = ("train", "valid", "test")
        images = [
            {**given["images"][0], "path": f"{split}/{label}/{number:04}.jpg", "split": split, "class_index": index}
            for split in splits
            for index, label in enumerate(self.classes)
            for number in range(self.counts(split)[label])
        ]
        folder = self.plan["locations"]["manifest"]
        samples = [
            {
                "path": f"train/{label}/{number:04}.jpg",
                "label": label,
                "thumbnail": f"samples/{index * SAMPLES + number + 1:04}.jpg",
            }
            for index, label in enumerate(self.classes)
            for number in range(SAMPLES)
        ]
        self.pictures |= {folder + one["thumbnail"]: picture(hash_of(one["path"])) for one in samples}
        document = given | {
            "classes": self.classes,
            "counts": {split: self.counts(split) for split in splits},
            "images": images,
            "samples": samples,
            "unreadable": [{"path": f"train/{self.classes[0]}/broken.jpg", "reason": "image file is truncated"}],
        }
        self.add("manifest", document, self.plan["locations"]["manifest"] + "manifest.json")

    def add_leaderboard(self) -> None:
        tuning_job = self.plan["names"]["tune"]
        trials = []
        for number in range(1, self.trials + 1):
            rate, decay = 10 ** self.random.uniform(-5, -1), 10 ** self.random.uniform(-3, -1)
            objective = self.accuracy - 0.04 * abs(math.log10(rate) + 2.6) ** 1.5 + self.random.gauss(0, 0.012)
            failed = rate > 0.06
            trials.append(
                {
                    "rank": None,
                    "job": f"{tuning_job}-{number:03}-{self.random.randrange(16**8):08x}",
                    "status": "Failed" if failed else "Completed",
                    "objective": None if failed else round(max(0.05, min(0.995, objective)), 4),
                    "hyperparameters": {
                        "learning_rate": repr(rate),
                        "eps": repr(10 ** self.random.uniform(-9, -8)),
                        "weight_decay": repr(decay),
                        "batch_size": self.random.choice(["64", "128"]),
                    },
                    "seconds": round(self.random.uniform(70, 110), 3),
                    "failure_reason": "AlgorithmError: the loss became nan at step 12" if failed else None,
                }
            )
        trials.sort(key=lambda trial: (trial["objective"] is None, -(trial["objective"] or 0)))
        for rank, trial in enumerate(trials, start=1):
            trial["rank"] = rank if trial["objective"] is not None else None
        best = trials[0]["job"] if trials[0]["rank"] else None
        self.add("leaderboard", {"version": 1, "tuning_job": tuning_job, "chosen": best, "trials": trials})

    def add_evaluation(self) -> None:
        counts = self.counts("test")
        size = len(self.classes)
        matrix = [[0] * size for _ in self.classes]
        for index, label in enumerate(self.classes):
            right = self.random.betavariate(14 * self.accuracy, 14 * (1 - self.accuracy) + 0.2)
            for _ in range(counts[label]):
                away = self.random.choice([-3, -2, -1, 1, 1, 2]) if size > 3 else 1
                matrix[index][index if self.random.random() < right else (index + away) % size] += 1
        per_class = [self._class(matrix, index) for index in range(size)]
        images = sum(map(sum, matrix))
        folder = self.plan["locations"]["evaluation"].rpartition("/")[0]
        mistakes = [
            {
                "path": f"test/{self.classes[i]}/{number:04}.jpg",
                "label": self.classes[i],
                "predicted": self.classes[j],
                "probability": round(0.995 - 0.012 * number, 4),
                "thumbnail": f"mistakes/{number:04}.jpg",
            }
            for number, (i, j) in enumerate(
                [(i, j) for i in range(size) for j in range(size) if i != j and matrix[i][j]][:24], start=1
            )
        ]
        document = example("evaluation") | {
            "run_id": self.run_id,
            "classes": self.classes,
            "majority_share": max(counts.values()) / images,
            "images": images,
            "accuracy": sum(matrix[i][i] for i in range(size)) / images,
            "top5_accuracy": 0.993,
            "macro_f1": sum(one["f1"] for one in per_class) / size,
            "accuracy_interval": [0.9 * self.accuracy, 1.03 * self.accuracy],
            "macro_f1_interval": [0.89 * self.accuracy, 1.03 * self.accuracy],
            "calibration_error": 0.0213,
            "calibration": {
                "temperature": 1.37,
                "before": {"error": 0.0641, "log_loss": 0.31, "bins": self._bins(0.12)},
                "after": {"error": 0.0213, "log_loss": 0.24, "bins": self._bins(0.02)},
            },
            "answered": {"confidence_threshold": 0.42, "images": int(0.96 * images), "accuracy": 0.975},
            "per_class": per_class,
            "confusion_matrix": matrix,
            "mistakes": mistakes,
        }
        self.pictures |= {f"{folder}/{one['thumbnail']}": picture(number) for number, one in enumerate(mistakes)}
        compared = {"same_classes": True, "images": images, "left_out": 0, "wins": 14, "losses": 6}
        document["champion"] = {"run_id": CHAMPION, "weights_sha256": "1" * 64, **compared}
        self.add("evaluation", document, self.plan["locations"]["evaluation"])
        theirs = json.loads(json.dumps(self.plan).replace(self.run_id, CHAMPION))
        self.add("plan", theirs, f"s3://{BUCKET}/runs/{CHAMPION}/plan.json")
        of_theirs = document | {"run_id": CHAMPION, "accuracy": 0.9 * document["accuracy"], "champion": None}
        self.add("evaluation", of_theirs, theirs["locations"]["evaluation"])

    def _class(self, matrix: list[list[int]], index: int) -> dict[str, Any]:
        right, asked, answered = matrix[index][index], sum(matrix[index]), sum(row[index] for row in matrix)
        precision, recall = right / (answered or 1), right / (asked or 1)
        f1 = 2 * precision * recall / ((precision + recall) or 1)
        return {
            "label": self.classes[index],
            "images": asked,
            "predicted": answered,
            "precision": precision,
            "precision_interval": [max(0, precision - 0.08), min(1, precision + 0.05)],
            "recall": recall,
            "recall_interval": [max(0, recall - 0.1), min(1, recall + 0.06)],
            "f1": f1,
        }

    def _bins(self, gap: float) -> list[dict[str, Any]]:
        """Return 15 bins of a model that says so much more than it knows."""
        bins = []
        for number in range(15):
            low, high = number / 15, (number + 1) / 15
            confidence, images = (low + high) / 2, max(0, int((number - 3) ** 2.2)) if number > 3 else 0
            accuracy = min(1.0, max(0.0, confidence - gap * (1 - confidence) * 3))
            some = (
                {"confidence": confidence, "accuracy": accuracy}
                if images
                else dict.fromkeys(("confidence", "accuracy"))
            )
            bins.append({"low": low, "high": high, "images": images, **some})
        return bins

    def add_variants(self) -> None:
        self.add("variants", example("variants") | {"run_id": self.run_id}, self.plan["locations"]["variants"])

    def add_verdict(self, accepted: bool) -> None:
        evaluation = self.documents[self.plan["locations"]["evaluation"]]
        accuracy, images = evaluation["accuracy"], evaluation["images"]
        checks = [
            {
                "name": "min_accuracy",
                "passed": True,
                "value": accuracy,
                "threshold": 0,
                "statement": f"accuracy {accuracy:.4f} is not below min_accuracy 0",
            },
            {
                "name": "max_regression",
                "passed": accepted,
                "value": 0.004 if accepted else -0.081,
                "threshold": -0.05,
                "statement": "against the champion the accuracy changes by no less than "
                + ("+0.0040" if accepted else "-0.0810"),
            },
        ]
        begins = "Accepted" if accepted else "Rejected"
        document = example("verdict") | {
            "run_id": self.run_id,
            "verdict": "accept" if accepted else "reject",
            "reason": f"{begins} with accuracy {accuracy:.4f} on {images} images of test: {checks[1]['statement']}.",
            "accuracy": accuracy,
            "images": images,
            "checks": checks,
            "comparison": {
                "case": "compared",
                "champion_run_id": CHAMPION,
                "images": images,
                "left_out": 0,
                "wins": 14 if accepted else 3,
                "losses": 6 if accepted else 22,
                "difference": 0.022 if accepted else -0.053,
                "lower_bound": 0.004 if accepted else -0.081,
                "p_value": 0.115 if accepted else 0.00015,
            },
        }
        self.add("verdict", document)

    def add_verification(self) -> None:
        given = example("verification")
        answers = [
            {
                **given["answers"][0],
                "path": f"test/{label}/0001.jpg",
                "expected": label,
                "answered": label,
                "milliseconds": round(self.random.uniform(35, 70), 1),
            }
            for label in self.classes[:10]
        ]
        self.add("verification", given | {"run_id": self.run_id, "answers": answers})


def _put(s3: Any, uri: str, content: bytes) -> None:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    s3.put_object(Bucket=bucket, Key=key, Body=content)


def example(name: str) -> dict[str, Any]:
    """Return the example of a contract."""
    document: dict[str, Any] = json.loads((ROOT / "contracts" / "examples" / f"{name}.json").read_text())
    return document


def hash_of(text: str) -> int:
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)


def picture(seed: int, size_px: int = 96) -> bytes:
    """Return a JPEG of a few shapes."""
    choose = random.Random(seed)
    colours = [tuple(choose.randrange(40, 230) for _ in range(3)) for _ in range(5)]
    image = Image.new("RGB", (size_px, size_px), colours[0])
    draw = ImageDraw.Draw(image)
    for colour in colours[1:]:
        x, y = choose.randrange(size_px), choose.randrange(size_px)
        draw.ellipse((x - 22, y - 22, x + 22, y + 22), fill=colour)
    content = io.BytesIO()
    image.save(content, "JPEG", quality=80)
    return content.getvalue()
