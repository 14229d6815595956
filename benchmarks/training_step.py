"""A step of full fine-tuning against the same network in float32, contiguous; and how long steps wait for images.

    python -m benchmarks.training_step --dataset photos --weights tf_efficientnet_lite0.safetensors

Prints one JSON document: seconds a step of both and their ratio, and the share of an epoch that was waited.
"""

import json

import torch
from torch.nn import functional

from benchmarks.photographs import dataset_of, network_of, options, seconds_of

BATCH = 32
STEPS = 8


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--size", type=int, default=224)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)

    from allocator import keep_freed_memory
    from batches import ImageBatches, augmentation_of
    from engine import computing_in
    from network import preprocessing_of
    from pictures import scaled_pictures, squares
    from precision import training_dtype

    device = torch.device("cpu")
    images, labels = torch.randn(BATCH, 3, given.size, given.size), torch.randint(0, 10, (BATCH,))
    plain = network_of(given).train()

    def plain_step() -> None:
        functional.cross_entropy(plain(images), labels).backward()

    plain_step()
    baseline = seconds_of(plain_step, 3)
    keep_freed_memory()
    ours = network_of(given).train().to(memory_format=torch.channels_last)
    precision = training_dtype(device, given.size)

    def step(inputs: torch.Tensor, targets: torch.Tensor) -> None:
        with computing_in(precision, device):
            logits = ours(inputs)
        functional.cross_entropy(logits.float(), targets).backward()

    last = images.contiguous(memory_format=torch.channels_last)
    step(last, labels)
    fast = seconds_of(lambda: step(last, labels), 3)

    root = dataset_of(given)
    paths = sorted((root / "train").rglob("*.jpg"))[: BATCH * STEPS]
    entries = [{"path": path.relative_to(root).as_posix()} for path in paths]
    preprocessing = preprocessing_of(given.architecture, given.size, "pad")
    batches = ImageBatches(
        scaled_pictures(root, entries, round(1.15 * given.size)),
        [0] * len(entries),
        squares(root, entries[:1], preprocessing),
        [0],
        preprocessing,
        augmentation_of("cut", True, 0, preprocessing),
        device,
    )
    order = [list(range(start, start + BATCH)) for start in range(0, len(entries) - BATCH + 1, BATCH)]

    def epoch() -> None:
        for inputs, targets in batches.train(order, 1, given.size):
            step(inputs, targets)

    whole = seconds_of(epoch)
    print(
        json.dumps(
            {
                "seconds_a_step": {"float32, contiguous": baseline, "ours": fast},
                "ratio": baseline / fast,
                "waiting_share": batches.waited_seconds / whole,
            }
        )
    )


if __name__ == "__main__":
    main()
