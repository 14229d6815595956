"""Train, tune, deploy, invoke and delete by the SageMaker SDK v2; run by its own environment's Python.

sdk_v2.py TARGET: a JSON file. The last line printed is the outcome.
"""

import json
import sys
from pathlib import Path

import sagemaker
from sagemaker.deserializers import JSONDeserializer
from sagemaker.inputs import TrainingInput
from sagemaker.model import Model
from sagemaker.predictor import Predictor
from sagemaker.pytorch import PyTorch
from sagemaker.serializers import IdentitySerializer
from sagemaker.tuner import ContinuousParameter, HyperparameterTuner

target = json.loads(Path(sys.argv[1]).read_text())
name = target["name"]
session = sagemaker.Session(default_bucket=target["bucket"])
estimator = PyTorch(
    entry_point="train.py",
    source_dir=target["source"],
    image_uri=target["training_image"],
    role=target["role"],
    instance_type=target["instance_type"],
    instance_count=1,
    hyperparameters=target["hyperparameters"],
    metric_definitions=target["metric_definitions"],
    output_path=target["output"],
    sagemaker_session=session,
)
data = {"dataset": TrainingInput(target["dataset"])}
estimator.fit(data, job_name=name, wait=False)
session.logs_for_job(name, wait=True, poll=1)
described = session.describe_training_job(name)

tuner = HyperparameterTuner(
    estimator,
    "accuracy",
    {"rate": ContinuousParameter(0.1, 0.9)},
    metric_definitions=target["metric_definitions"],
    strategy="Random",
    max_jobs=2,
    max_parallel_jobs=2,
)
tuner.fit(data, job_name=f"{name}-t", wait=False)
session.wait_for_tuning_job(f"{name}-t", poll=1)

model = Model(
    image_uri=target["serving_image"],
    model_data=estimator.model_data,
    role=target["role"],
    name=name,
    sagemaker_session=session,
)
model.deploy(1, target["instance_type"], endpoint_name=name, wait=False)
session.wait_for_endpoint(name, poll=1)
predictor = Predictor(
    name,
    sagemaker_session=session,
    serializer=IdentitySerializer(content_type="text/plain"),
    deserializer=JSONDeserializer(),
)
answer = predictor.predict(target["question"].encode())
endpoint = session.sagemaker_client.describe_endpoint(EndpointName=name)["EndpointStatus"]
predictor.delete_endpoint(delete_endpoint_config=True)
model.delete_model()
outcome = {
    "training": described["TrainingJobStatus"],
    "artifact": described["ModelArtifacts"]["S3ModelArtifacts"],
    "metrics": {metric["MetricName"]: metric["Value"] for metric in described["FinalMetricDataList"]},
    "endpoint": endpoint,
    "answer": answer,
    "best": tuner.best_training_job(),
}
print()
print(json.dumps(outcome))
