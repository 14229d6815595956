"""What the run passes to its jobs against what the scripts take, and what the scripts print against what it reads."""

import ast
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

TRAINING_CODE = Path(__file__).parents[2] / "training_code"
OF_THE_TOOLKIT = re.compile(r"sagemaker_\w+")
"""The toolkit takes these for itself; the script never sees them."""

INPUTS = {
    "full": {"model": {"weights": "none"}},
    "frozen_features": {},
    "weights from S3": {"model": {"weights": "s3://bucket/resnet50.pth"}},
}


@pytest.fixture(params=INPUTS)
def plan(request, make_plan):
    return make_plan(**INPUTS[request.param])


def job_of(plan, step):
    return plan["requests"][step].get("TrainingJobDefinition", plan["requests"][step])


def hyperparameters_of(plan, step):
    job = job_of(plan, step)
    return job["StaticHyperParameters"] if step == "tune" else job["HyperParameters"]


@pytest.mark.parametrize("step", ["prepare", "tune", "train", "evaluate"])
def test_every_hyperparameter_is_an_option_of_its_script(plan, step):
    hyperparameters = hyperparameters_of(plan, step)
    options = options_of(json.loads(hyperparameters["sagemaker_program"]))
    passed = {name for name in hyperparameters if not OF_THE_TOOLKIT.fullmatch(name)}
    if step in ("tune", "train"):
        ranges = plan["requests"]["tune"]["HyperParameterTuningJobConfig"]["ParameterRanges"]
        passed |= {one["Name"] for kind in ranges.values() for one in kind}
    assert passed <= set(options)


@pytest.mark.parametrize("step", ["prepare", "tune", "train", "evaluate"])
def test_every_value_of_a_choice_is_one_of_the_scripts(plan, step):
    hyperparameters = hyperparameters_of(plan, step)
    options = options_of(json.loads(hyperparameters["sagemaker_program"]))
    chosen = {name: value for name, value in hyperparameters.items() if options.get(name)}
    assert chosen
    for name, value in chosen.items():
        assert value in options[name], name


def test_every_rule_of_the_profiler_that_finds_issues_may_warn_or_stop():
    schema = json.loads((TRAINING_CODE.parent / "contracts" / "execution_input.schema.json").read_text())
    actions = schema["properties"]["debugger"]["properties"]["actions"]["properties"]
    found = set(re.findall(r'_finding\(\s*"(\w+)"', (TRAINING_CODE / "profile_rules.py").read_text()))
    assert found == {rule for rule, action in actions.items() if action["enum"] == ["warn", "stop"]}


def test_what_ends_a_training_early_is_what_condemns_it(make_plan):
    schema = json.loads((TRAINING_CODE.parent / "contracts" / "execution_input.schema.json").read_text())
    actions = schema["properties"]["debugger"]["properties"]["actions"]["properties"]["Overfit"]["enum"]
    ending = []
    for action in actions:
        train = hyperparameters_of(make_plan(debugger={"actions": {"Overfit": action}}), "train")
        ending += [action] if "Overfit" in train["debugger_stop_on"].split(",") else []
    assert sorted(ending) == sorted(_constant(r"CONDEMNING = (.+)"))


def test_a_review_changes_options_no_further_than_training_takes_them():
    options = (TRAINING_CODE / "train_options.py").read_text()
    ranges = [
        re.search(rf'"--{name}", type=number\(float, 0, (.+?)\)', options) for name in ("weight_decay", "dropout")
    ]
    highest = [float(found[1]) for found in ranges]
    assert highest == [*_constant(r"HIGHEST_WEIGHT_DECAY, HIGHEST_DROPOUT = (.+)")]


def test_the_toolkits_own_hyperparameters_are_json(plan):
    for step in ("prepare", "tune", "train", "optimize", "evaluate"):
        for name, value in hyperparameters_of(plan, step).items():
            assert isinstance(value, str)
            if OF_THE_TOOLKIT.fullmatch(name):
                json.loads(value)


@pytest.mark.parametrize("step", ["prepare", "tune", "train", "evaluate"])
def test_every_channel_is_a_folder_option_of_its_script(plan, step):
    script = json.loads(hyperparameters_of(plan, step)["sagemaker_program"])
    variables = set(re.findall(r"SM_CHANNEL_\w+", _sources(script)))
    channels = {f"SM_CHANNEL_{channel['ChannelName'].upper()}" for channel in job_of(plan, step)["InputDataConfig"]}
    assert channels - {"SM_CHANNEL_CODE"} <= variables


def test_a_training_finds_the_wheels_that_its_artifact_carries_to_an_endpoint_without_a_network(make_plan):
    requests = make_plan({"isolated": True}, model={"weights": "none"})["requests"]
    wheels = {
        step: {
            channel["ChannelName"]: channel["DataSource"]["S3DataSource"]["S3Uri"].rpartition("/wheels/")[2]
            for channel in requests[step]["InputDataConfig"]
            if "wheels" in channel["ChannelName"]
        }
        for step in ("prepare", "train", "optimize", "evaluate")
    }
    assert wheels == {
        "prepare": {"wheels": "training/"},
        "train": {"wheels": "training/", "serving_wheels": "serving/"},
        "optimize": {"wheels": "serving/"},
        "evaluate": {"wheels": "training/"},
    }
    assert "SM_CHANNEL_SERVING_WHEELS" in _sources("train.py")
    endpoint = requests["model"]["PrimaryContainer"]["Environment"]
    assert endpoint["PIP_FIND_LINKS"] == "/opt/ml/model/code/wheels"


def test_the_evaluation_takes_the_channel_that_the_state_adds(definition):
    added = re.search(r"'ChannelName': '(\w+)'", definition["States"]["EvaluateModel"]["Arguments"])
    assert f"SM_CHANNEL_{added[1].upper()}" in _sources("evaluate.py")


def test_the_metrics_are_found_in_the_lines_that_a_training_prints(plan):
    line = printed("epoch_line", epoch=EPOCH, epochs=8, seconds_left=41.2)
    last = printed("final_line", best=EPOCH)
    for step in ("tune", "train"):
        metrics = metrics_of(plan, step)
        found = {name: float(re.search(regex, line)[1]) for name, regex in metrics.items()}
        assert found == {
            "valid:accuracy": 0.86,
            "valid:loss": 0.5012,
            "train:accuracy": 0.88,
            "train:loss": 0.4123,
        }
        assert float(re.search(metrics["valid:accuracy"], last)[1]) == 0.86


def test_the_objective_is_one_of_the_metrics(plan):
    objective = plan["requests"]["tune"]["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"]
    assert objective["MetricName"] in metrics_of(plan, "tune")


@pytest.mark.parametrize("step", ["prepare", "tune", "train", "evaluate"])
def test_a_checkpoint_folder_is_told_where_there_is_one(plan, step):
    job = job_of(plan, step)
    assert ("CheckpointConfig" in job) == ("SM_CHECKPOINT_DIR" in job.get("Environment", {}))


def metrics_of(plan, step):
    algorithm = job_of(plan, step)["AlgorithmSpecification"]
    return {metric["Name"]: metric["Regex"] for metric in algorithm["MetricDefinitions"]}


EPOCH = SimpleNamespace(
    epoch=3,
    train_loss=0.41234,
    train_accuracy=0.88,
    valid_loss=0.5012,
    valid_accuracy=0.86,
    learning_rate=9.8e-4,
    image_size_px=160,
    images_per_second=812.0,
    waiting_share=0.01,
    phase="fine_tune",
)


def printed(function, **arguments):
    """Call a function of history.py that only formats: taken out of its module, which would import torch."""
    tree = ast.parse((TRAINING_CODE / "history.py").read_text())
    (node,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function]
    for argument in node.args.args:
        argument.annotation = None
    scope = {}
    exec(compile(ast.Module([node], []), "history.py", "exec"), scope)
    return scope[function](**arguments)


def options_of(script):
    """Return a script's options with their choices, read from its source, which may import torch."""
    options = {}
    for tree in _trees(script):
        for node in ast.walk(tree):
            if isinstance(node, ast.For) and isinstance(node.iter, ast.Tuple):
                if "add_argument(f'--{name}'" in ast.unparse(node):
                    options |= dict.fromkeys(item.value for item in node.iter.elts)
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".add_argument"):
                name = node.args[0]
                if isinstance(name, ast.Constant) and name.value.startswith("--"):
                    choices = [ast.literal_eval(k.value) for k in node.keywords if k.arg == "choices"]
                    options[name.value.removeprefix("--")] = choices[0] if choices else None
    return options


def _trees(script):
    tree = ast.parse((TRAINING_CODE / script).read_text())
    yield tree
    if any(isinstance(node, ast.ImportFrom) and node.module == "train_options" for node in tree.body):
        yield from _trees("train_options.py")
    imported = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == "options"]
    names = {alias.name for node in imported for alias in node.names}
    shared = ast.parse((TRAINING_CODE / "options.py").read_text())
    yield from (node for node in shared.body if isinstance(node, ast.FunctionDef) and node.name in names)


def _sources(script):
    return "\n".join(ast.unparse(tree) for tree in _trees(script))


def _constant(pattern):
    steering = TRAINING_CODE.parent / "functions" / "review_debugger" / "steering.py"
    return ast.literal_eval(re.search(pattern, steering.read_text())[1])
