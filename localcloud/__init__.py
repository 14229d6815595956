"""A local AWS in one process: MiniStack as its base, with a SageMaker that runs jobs and endpoints for real.

cloud = LocalCloud(Path(".local"))
cloud.start(port=4566)
outputs = deploy(cloud.session(), Path("template.yaml"), "my-stack", {}, print)
cloud.stop()
"""

from localcloud.cloud import AlreadyRunning, FaultRefused, LocalCloud, NotRunning, PortInUse, StartFailed
from localcloud.deployment import DeploymentFailed, deploy
from localcloud.packaging import PackagingFailed

__all__ = [
    "AlreadyRunning",
    "DeploymentFailed",
    "FaultRefused",
    "LocalCloud",
    "NotRunning",
    "PackagingFailed",
    "PortInUse",
    "StartFailed",
    "deploy",
]
