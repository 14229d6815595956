"""A service with one endpoint, to be killed: prints the port of its server, then the endpoint's status, and waits."""

import sys
import time
from pathlib import Path
from unittest.mock import MagicMock

from localcloud.containers.images import Image, Images, ServingContainer
from localcloud.containers.tiny import launch_serving
from localcloud.processes import ProcessSpec
from localcloud.sagemaker.account import Ports
from localcloud.sagemaker.service import SageMaker


def launch(container: ServingContainer) -> ProcessSpec:
    print(container.port, flush=True)
    return launch_serving(container)


ports = Ports(MagicMock(), lambda _role: {}, lambda *_event: None)
service = SageMaker(Path(sys.argv[1]), Images({"tiny": Image(serving=launch)}), ports, "us-east-1", "123456789012")
role = "arn:aws:iam::123456789012:role/serving"
service.call("CreateModel", {"ModelName": "m", "PrimaryContainer": {"Image": "tiny"}, "ExecutionRoleArn": role})
variant = {"VariantName": "v", "ModelName": "m", "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}
service.call("CreateEndpointConfig", {"EndpointConfigName": "c", "ProductionVariants": [variant]})
service.call("CreateEndpoint", {"EndpointName": "e", "EndpointConfigName": "c"})
while (status := service.call("DescribeEndpoint", {"EndpointName": "e"})["EndpointStatus"]) == "Creating":
    time.sleep(0.02)
print(status, flush=True)
time.sleep(600)
