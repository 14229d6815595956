"""What the local cloud costs: to start, to deploy the template, to run a job, to invoke an endpoint.

    python -m benchmarks.local_cloud             # a minute or two
    python -m benchmarks.local_cloud --quick     # as in the tests

Each figure stands beside a baseline of the same run: MiniStack without a SageMaker, the packaging of functions that are
packaged, the job's own process, a request to the endpoint's own server. Prints one JSON document, times in seconds:
`added` is what the local cloud adds (medians), `ratio` what it takes against the baseline. `load` is the machine's load
before it began: with other work on the machine the figures are worth little.
"""

import argparse
import io
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import urllib3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest

from localcloud import LocalCloud, deploy
from localcloud.cloud import ACCOUNT_ID, REGION, server_environment

ROOT = Path(__file__).parents[1]
SERVER = ROOT / "localcloud" / "containers" / "tiny_server.py"
NOTHING = [sys.executable, "-c", "pass"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few repetitions, and no deployment")
    quick = parser.parse_args().quick
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        figures = {"boot": boot(home, 1 if quick else 5)}
        cloud = LocalCloud(home / "cloud")
        cloud.start(free_port())
        try:
            bench = Bench(cloud)
            if not quick:
                figures["deploy"] = deployment(home)
            figures["job"] = bench.job(2 if quick else 9)
            figures["invocation"] = bench.invocation(home, 50 if quick else 1000)
        finally:
            cloud.stop()
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()}
    print(json.dumps({"machine": machine, "load": load, **figures}, indent=1))
    return 0


def boot(home: Path, times: int) -> dict[str, float]:
    """From nothing to the first answer, and MiniStack alone."""
    ours, alone = [], []
    for number in range(times):
        cloud = LocalCloud(home / f"boot-{number}")
        ours.append(timed(lambda: cloud.start(free_port())))  # noqa: B023 - it is called at once
        cloud.stop()
        alone.append(ministack_alone(home / f"alone-{number}"))
    return compared(ours, alone)


def ministack_alone(home: Path) -> float:
    port = free_port()
    environment = server_environment(os.environ) | {
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
        "STATE_DIR": str(home / "state"),
        "DOCKER_HOST": f"unix://{home}/no-docker",
        "LOG_LEVEL": "WARNING",
    }
    home.mkdir()
    started = time.perf_counter()
    with (home / "log").open("wb") as log:
        server = subprocess.Popen([sys.executable, "-m", "ministack"], env=environment, stdout=log, stderr=log)
    try:
        while not answers(port):
            if server.poll() is not None or time.perf_counter() - started > 30:
                raise RuntimeError((home / "log").read_text())
            time.sleep(0.01)
        return time.perf_counter() - started
    finally:
        server.terminate()
        server.wait(20)


def deployment(home: Path) -> dict[str, float]:
    """The template on a new cloud, when its functions have been packaged before; the baseline is its update."""
    seconds, updates = [], []
    for number in range(3):
        cloud = LocalCloud(home / f"deploy-{number}")
        cloud.start(free_port())
        try:
            runtime = f"python{sys.version_info.major}.{sys.version_info.minor}"
            architecture = "arm64" if platform.machine() in ("arm64", "aarch64") else "x86_64"
            parameters = {"FunctionRuntime": runtime, "FunctionArchitecture": architecture}
            for times in (seconds, updates):
                times.append(
                    timed(lambda: deploy(cloud.session(), ROOT / "template.yaml", "bench", parameters, lambda _: None))  # noqa: B023
                )
        finally:
            cloud.stop()
    return compared(seconds[1:], updates[1:])  # the first may have packaged


class Bench:
    def __init__(self, cloud: LocalCloud):
        self._url = cloud.environment["AWS_ENDPOINT_URL"]
        self._session = cloud.session()
        self._sagemaker = self._session.client("sagemaker")
        self._session.client("s3").create_bucket(Bucket="bench")
        self._role = self._create_role()
        self._image = f"{ACCOUNT_ID}.dkr.ecr.{REGION}.amazonaws.com/tiny:1"

    def job(self, times: int) -> dict[str, float]:
        """From CreateTrainingJob to Completed of a job that does nothing, and the process that does nothing."""
        self._run_job("warm-up")
        jobs = [timed(lambda number=number: self._run_job(f"job-{number}")) for number in range(times)]
        return compared(jobs, [timed(lambda: subprocess.run(NOTHING, check=True)) for _ in range(times)])

    def invocation(self, home: Path, times: int) -> dict[str, float]:
        """One request after the other to the endpoint, and to the same server without the cloud, by turns."""
        self._endpoint("bench")
        port = free_port()
        (home / "model").mkdir()
        environment = {**os.environ, "PORT": str(port), "MODEL_FOLDER": str(home / "model")}
        direct = subprocess.Popen([sys.executable, str(SERVER)], env=environment, stdout=subprocess.DEVNULL)
        pool = urllib3.PoolManager()
        url = f"{self._url}/endpoints/bench/invocations"
        signed = AWSRequest("POST", url, data=b"question", headers={"Content-Type": "text/plain"})
        SigV4Auth(self._session.get_credentials(), "sagemaker", REGION).add_auth(signed)
        client = self._session.client("sagemaker-runtime")
        try:
            while not answers(port, "/ping"):
                time.sleep(0.02)

            def post(to: str, headers: dict[str, str]) -> None:
                answer = pool.request("POST", to, body=b"question", headers=headers, retries=False)
                assert answer.status == 200, answer.data

            def by_boto3() -> None:
                client.invoke_endpoint(EndpointName="bench", Body=b"question", ContentType="text/plain")["Body"].read()

            here, there, boto = [], [], []
            for number in range(times + 10):
                figures = (
                    timed(lambda: post(url, dict(signed.headers))),
                    timed(lambda: post(f"http://127.0.0.1:{port}/invocations", {"Content-Type": "text/plain"})),
                    timed(by_boto3),
                )
                if number >= 10:
                    for kept, figure in zip((here, there, boto), figures, strict=True):
                        kept.append(figure)
        finally:
            direct.terminate()
            direct.wait(10)
        return compared(here, there) | {"by_boto3": rounded(statistics.median(boto))}

    def _run_job(self, name: str) -> None:
        self._sagemaker.create_training_job(
            TrainingJobName=name,
            AlgorithmSpecification={"TrainingImage": self._image, "TrainingInputMode": "File"},
            HyperParameters={"script": "pass"},
            RoleArn=self._role,
            OutputDataConfig={"S3OutputPath": "s3://bench/jobs"},
            ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
            StoppingCondition={"MaxRuntimeInSeconds": 60},
        )
        while (
            status := self._sagemaker.describe_training_job(TrainingJobName=name)["TrainingJobStatus"]
        ) != "Completed":
            assert status == "InProgress", status
            time.sleep(0.01)

    def _endpoint(self, name: str) -> None:
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w:gz"):
            pass
        self._session.client("s3").put_object(Bucket="bench", Key="model.tar.gz", Body=archive.getvalue())
        container = {"Image": self._image, "ModelDataUrl": "s3://bench/model.tar.gz"}
        self._sagemaker.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=self._role)
        variant = {"VariantName": "all", "ModelName": name, "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}
        self._sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
        self._sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
        often = {"Delay": 1, "MaxAttempts": 60}
        self._sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=name, WaiterConfig=often)

    def _create_role(self) -> str:
        trusted = {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}
        iam = self._session.client("iam")
        role = iam.create_role(RoleName="bench", AssumeRolePolicyDocument=json.dumps({"Statement": [trusted]}))["Role"]
        everything = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
        iam.put_role_policy(RoleName="bench", PolicyName="all", PolicyDocument=json.dumps(everything))
        return role["Arn"]


def compared(figures: list[float], baseline: list[float]) -> dict[str, float]:
    ours, theirs = statistics.median(figures), statistics.median(baseline)
    slowest = sorted(figures)[max(0, int(len(figures) * 0.95) - 1)]
    return {
        "seconds": rounded(ours),
        "baseline": rounded(theirs),
        "added": rounded(ours - theirs),
        "ratio": round(ours / theirs, 2),
        "p95": rounded(slowest),
        "times": len(figures),
    }


def timed(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def rounded(seconds: float) -> float:
    return round(seconds, 5)


def answers(port: int, path: str = "/_ministack/health") -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=1) as response:
            return response.status == 200
    except OSError:
        return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    sys.exit(main())
