"""The `tiny` image: plain Python without any framework, for tests of the services around it.

Training runs ContainerEntrypoint, or else the hyperparameter `script`, Python of a line, or of several lines as a JSON
string, with SM_MODEL_DIR, SM_OUTPUT_DIR, SM_OUTPUT_DATA_DIR, SM_CHANNEL_<NAME>, SM_HP_<NAME>, SM_HOSTS and
SM_CURRENT_HOST set. Serving runs `serve.py` of the model archive, or else tiny_server.py, with MODEL_FOLDER and PORT
set.
"""

import json
import sys
from pathlib import Path

from localcloud.containers.images import Image, LaunchError, ServingContainer, TrainingContainer, host_variables
from localcloud.processes import ProcessSpec


def tiny_image() -> Image:
    return Image(training=launch_training, serving=launch_serving)


def launch_training(container: TrainingContainer) -> ProcessSpec:
    """Raises LaunchError if there is neither an entry point nor a script."""
    opt_ml = container.opt_ml
    environment = {
        **container.environment,
        **host_variables(container),
        "PYTHONUNBUFFERED": "1",
        "SM_HOSTS": json.dumps(container.hosts),
        "SM_CURRENT_HOST": container.host,
        "SM_MODEL_DIR": str(opt_ml / "model"),
        "SM_OUTPUT_DIR": str(opt_ml / "output"),
        "SM_OUTPUT_DATA_DIR": str(opt_ml / "output" / "data"),
        **{f"SM_HP_{name.upper()}": value for name, value in container.hyperparameters.items()},
        **{
            f"SM_CHANNEL_{path.name.upper()}": str(path)
            for path in (opt_ml / "input" / "data").iterdir()
            if path.is_dir()
        },
    }
    argv = [*container.entrypoint, *container.arguments]
    if not argv:
        script = container.hyperparameters.get("script")
        if script is None:
            raise LaunchError("the image `tiny` needs a ContainerEntrypoint or the hyperparameter `script`")
        argv = [sys.executable, "-c", json.loads(script) if script.startswith('"') else script]
    return ProcessSpec(argv, environment, opt_ml)


def launch_serving(container: ServingContainer) -> ProcessSpec:
    script = container.model_folder / "serve.py"
    environment = {
        **container.environment,
        "PYTHONUNBUFFERED": "1",
        "MODEL_FOLDER": str(container.model_folder),
        "PORT": str(container.port),
    }
    server = script if script.is_file() else Path(__file__).with_name("tiny_server.py")
    return ProcessSpec([sys.executable, str(server)], environment, container.work_folder)
