"""What hooks save of a training, by collection, in the words of SageMaker's CreateTrainingJob (DebugHookConfig).

The hooks' default, and what PlanRun, which has this module by a link, asks SageMaker's own Debugger for: its
configuration takes the default's place. Neither says how often, as only the training knows how long it is.
"""

from typing import Any

SAVED_COLLECTIONS: list[dict[str, Any]] = [
    {
        "CollectionName": "weights",
        "CollectionParameters": {
            "reductions": "min,max,mean,variance,l2_norm",
            "save_histogram": "false",
        },
    },
    {
        "CollectionName": "biases",
        "CollectionParameters": {"reductions": "min,max,mean", "save_histogram": "false"},
    },
    {
        "CollectionName": "gradients",
        "CollectionParameters": {
            "reductions": "min,max,abs_mean,l2_norm",
            "save_histogram": "false",
        },
    },
    {
        "CollectionName": "updates",
        "CollectionParameters": {
            "include_regex": "^update/",
            "reductions": "min,max,l2_norm",
            "save_histogram": "false",
        },
    },
    {
        "CollectionName": "activations",
        "CollectionParameters": {"reductions": "min,max,mean", "save_histogram": "false"},
    },
    {
        "CollectionName": "activity",
        "CollectionParameters": {"include_regex": "_activity$", "save_histogram": "false"},
    },
    {
        "CollectionName": "inputs",
        # The phase's start with every step that is saved, whether scalars are or inputs.
        "CollectionParameters": {"include_regex": "^inputs/,^scalar/phase_start$", "save_histogram": "false"},
    },
    {
        "CollectionName": "scalars",
        "CollectionParameters": {"include_regex": "^scalar/", "save_histogram": "false"},
    },
    {"CollectionName": "losses", "CollectionParameters": {"save_histogram": "false"}},
]
"""A tensor of a collection without reductions is saved whole."""
