"""Train, tune, deploy, invoke and delete by the SageMaker SDK v3; run by its own environment's Python.

sdk_v3.py TARGET: a JSON file. The last line printed is the outcome.
"""

import json
import sys
from pathlib import Path

from sagemaker.core.resources import Endpoint, EndpointConfig, HyperParameterTuningJob, Model, TrainingJob
from sagemaker.core.shapes import (
    AlgorithmSpecification,
    Channel,
    ContainerDefinition,
    ContinuousParameterRange,
    DataSource,
    HyperParameterAlgorithmSpecification,
    HyperParameterTrainingJobDefinition,
    HyperParameterTuningJobConfig,
    HyperParameterTuningJobObjective,
    MetricDefinition,
    OutputDataConfig,
    ParameterRanges,
    ProductionVariant,
    ResourceConfig,
    ResourceLimits,
    S3DataSource,
    StoppingCondition,
)

target = json.loads(Path(sys.argv[1]).read_text())
name = target["name"]
hyperparameters = {
    **target["hyperparameters"],
    "sagemaker_program": '"train.py"',
    "sagemaker_submit_directory": json.dumps(target["source_archive"]),
}
metrics = [MetricDefinition(name=metric["Name"], regex=metric["Regex"]) for metric in target["metric_definitions"]]
source = S3DataSource(s3_data_type="S3Prefix", s3_uri=target["dataset"])
channels = [Channel(channel_name="dataset", data_source=DataSource(s3_data_source=source))]
output = OutputDataConfig(s3_output_path=target["output"])
instances = ResourceConfig(instance_type=target["instance_type"], instance_count=1, volume_size_in_gb=10)
limit = StoppingCondition(max_runtime_in_seconds=600)

job = TrainingJob.create(
    training_job_name=name,
    role_arn=target["role"],
    algorithm_specification=AlgorithmSpecification(
        training_image=target["training_image"], training_input_mode="File", metric_definitions=metrics
    ),
    hyper_parameters=hyperparameters,
    input_data_config=channels,
    output_data_config=output,
    resource_config=instances,
    stopping_condition=limit,
)
job.wait(poll=1)

static = {key: value for key, value in hyperparameters.items() if key != "rate"}
tuning = HyperParameterTuningJob.create(
    hyper_parameter_tuning_job_name=f"{name}-t",
    hyper_parameter_tuning_job_config=HyperParameterTuningJobConfig(
        strategy="Random",
        hyper_parameter_tuning_job_objective=HyperParameterTuningJobObjective(type="Maximize", metric_name="accuracy"),
        resource_limits=ResourceLimits(max_number_of_training_jobs=2, max_parallel_training_jobs=2),
        parameter_ranges=ParameterRanges(
            continuous_parameter_ranges=[ContinuousParameterRange(name="rate", min_value="0.1", max_value="0.9")]
        ),
    ),
    training_job_definition=HyperParameterTrainingJobDefinition(
        static_hyper_parameters=static,
        algorithm_specification=HyperParameterAlgorithmSpecification(
            training_image=target["training_image"], training_input_mode="File", metric_definitions=metrics
        ),
        role_arn=target["role"],
        input_data_config=channels,
        output_data_config=output,
        resource_config=instances,
        stopping_condition=limit,
    ),
)
tuning.wait(poll=1)
tuning.refresh()

Model.create(
    model_name=name,
    primary_container=ContainerDefinition(
        image=target["serving_image"], model_data_url=job.model_artifacts.s3_model_artifacts
    ),
    execution_role_arn=target["role"],
)
variant = ProductionVariant(
    variant_name="all", model_name=name, initial_instance_count=1, instance_type=target["instance_type"]
)
EndpointConfig.create(endpoint_config_name=name, production_variants=[variant])
endpoint = Endpoint.create(endpoint_name=name, endpoint_config_name=name)
endpoint.wait_for_status("InService", poll=1)
answer = json.loads(endpoint.invoke(body=target["question"].encode(), content_type="text/plain").body.read())
status = endpoint.endpoint_status
endpoint.delete()
EndpointConfig.get(endpoint_config_name=name).delete()
Model.get(model_name=name).delete()
outcome = {
    "training": job.training_job_status,
    "artifact": job.model_artifacts.s3_model_artifacts,
    "metrics": {metric.metric_name: metric.value for metric in job.final_metric_data_list},
    "endpoint": status,
    "answer": answer,
    "best": tuning.best_training_job.training_job_name,
}
print()
print(json.dumps(outcome))
