"""Functions on the local cloud, and the same on MiniStack as it is: there each of our repairs is still needed."""

import json
import platform
import struct
import sys
import time
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.waiting import wait_for

RAISES = """
class OwnError(Exception):
    pass

calls = 0

def handler(event, context):
    global calls
    calls += 1
    if event == "raise":
        raise OwnError("as asked")
    return calls
"""


def raise_then_call(functions) -> tuple[dict[str, Any], int]:
    name = functions.create(RAISES)
    functions.invoke(name)
    return functions.invoke(name, "raise"), functions.invoke(name)


def test_the_error_is_the_exceptions_class_and_the_process_stays(functions):
    error, calls = raise_then_call(functions)
    assert (error["errorType"], error["errorMessage"]) == ("OwnError", "as asked")
    assert "OwnError" in error["stackTrace"][-1]
    assert calls == 3


def test_upstream_hides_the_class_and_ends_the_process(upstream_functions):
    error, calls = raise_then_call(upstream_functions)
    assert (error["errorType"], calls) == ("Runtime.HandlerError", 1)


def fastest_warm_call_ms(functions) -> float:
    name = functions.create("def handler(event, context): return 1")
    functions.invoke(name)
    times = []
    for _ in range(20):
        start = time.perf_counter()
        functions.invoke(name)
        times.append(time.perf_counter() - start)
    return min(times) * 1000


def test_a_warm_call_does_not_wait_50_ms_as_upstreams_does(functions, upstream_functions):
    upstreams = fastest_warm_call_ms(upstream_functions)
    assert upstreams >= 50
    assert fastest_warm_call_ms(functions) < upstreams - 10  # the rest takes ours longer where all is slow


ENVIRONMENT = "import os\ndef handler(event, context): return dict(os.environ)"


def test_a_function_sees_its_own_environment_only(functions):
    name = functions.create(ENVIRONMENT, Environment={"Variables": {"OWN": "yes", "AWS_REGION": "ours-is-reserved"}})
    variables = functions.invoke(name)
    assert variables["OWN"] == "yes"
    assert variables["AWS_REGION"] == "us-east-1"
    assert variables["AWS_ACCESS_KEY_ID"].startswith("ASIA")
    assert not {"HOME", "USER", "AWS_PROFILE", "PERSIST_STATE", "PYTHONPATH"} & set(variables)


def test_upstream_hands_the_hosts_environment_on(upstream_functions):
    assert "GATEWAY_PORT" in upstream_functions.invoke(upstream_functions.create(ENVIRONMENT))


def test_only_what_lambdas_runtime_carries_can_be_imported(functions):
    assert "boto" in functions.invoke(functions.create("import boto3\ndef handler(e, c): return boto3.__name__"))
    error = functions.invoke(functions.create("import ministack\ndef handler(e, c): return 1"))
    assert error["errorType"] == "Runtime.ImportModuleError"
    assert "No module named 'ministack'" in error["errorMessage"]


@pytest.mark.parametrize(
    ("source", "error_type"),
    [
        ("def other(event, context): pass", "Runtime.HandlerNotFound"),
        ("def handler(event, context) return 1", "Runtime.UserCodeSyntaxError"),
        ("raise LookupError('at import')", "LookupError"),
        ("def handler(event, context): return {1, 2}", "Runtime.MarshalError"),
        ("def handler(event, context): raise SystemExit(3)", "Runtime.ExitError"),
        ("import os\ndef handler(event, context): os._exit(3)", "Runtime.ExitError"),
        ("import time\ndef handler(event, context): time.sleep(600)", "Sandbox.Timedout"),
    ],
)
def test_errors_have_lambdas_names(functions, source, error_type):
    name = functions.create(source, Timeout=1 if error_type == "Sandbox.Timedout" else 60)
    assert functions.invoke(name)["errorType"] == error_type
    assert functions.invoke(name)["errorType"] == error_type


PRINTS = """
import os
import sys

def handler(event, context):
    print("{not json}")
    sys.stderr.write("half")
    os.write(1, b"raw")
    return 5
"""


def test_what_a_function_prints_is_its_log(session, functions, until):
    name = functions.create(PRINTS)
    assert functions.invoke(name) == 5
    logs = session.client("logs")

    def logged() -> str | None:
        events = logs.filter_log_events(logGroupName=f"/aws/lambda/{name}")["events"]
        text = "\n".join(event["message"] for event in events)
        return text if "REPORT" in text else None

    text = until(logged)
    assert "{not json}" in text
    assert "half" in text
    assert "raw" in text


CALLS_S3 = (
    "import boto3\ndef handler(event, context): return boto3.client('s3').put_object(Bucket=event, Key='k')['ETag']"
)


def test_the_functions_role_decides(session, functions):
    session.client("s3").create_bucket(Bucket="bucket-of-a-function")
    allowed = [{"Effect": "Allow", "Action": "s3:PutObject", "Resource": "arn:aws:s3:::bucket-of-a-function/*"}]
    assert functions.invoke(functions.create(CALLS_S3, allowed), "bucket-of-a-function")
    error = functions.invoke(functions.create(CALLS_S3, []), "bucket-of-a-function")
    assert "AccessDenied" in error["errorMessage"]


def put_under_a_policy_that_asks_for_tls(functions) -> Any:
    s3, bucket = functions.session.client("s3"), "bucket-that-asks-for-tls"
    s3.create_bucket(Bucket=bucket)
    denied = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [denied]}))
    return functions.invoke(functions.create(CALLS_S3), bucket)


def test_a_policy_that_asks_for_tls_lets_local_requests_pass(functions):
    assert isinstance(put_under_a_policy_that_asks_for_tls(functions), str)


def test_upstream_denies_every_request_under_it(upstream_functions):
    assert "AccessDenied" in put_under_a_policy_that_asks_for_tls(upstream_functions)["errorMessage"]


def extension(python: str, machine: int) -> dict[str, bytes]:
    """A native extension, as far as a package's files tell what it was built for."""
    header = b"\x7fELF" + bytes(12) + struct.pack("<HH", 3, machine)
    return {"app.py": b"def handler(event, context): return 1", f"native.cpython-{python}-linux-gnu.so": header}


X86_64, AARCH64 = 62, 183
OURS = f"CPython {sys.version_info.major}.{sys.version_info.minor} on {platform.machine()}"
ANOTHER = "CPython 3.9"


@pytest.mark.skipif(sys.platform != "linux", reason="the extension's machine is read from ELF")
def test_a_package_for_another_python_is_refused(functions, packed):
    package = packed(extension(f"39-{platform.machine()}", X86_64 if platform.machine() == "x86_64" else AARCH64))
    with pytest.raises(ClientError) as refused:
        functions.create("", Code={"ZipFile": package})
    assert_names_both(refused.value)
    name = functions.create("def handler(event, context): return 1")
    with pytest.raises(ClientError) as refused:
        functions.session.client("lambda").update_function_code(FunctionName=name, ZipFile=package)
    assert_names_both(refused.value)


def assert_names_both(error: ClientError) -> None:
    assert ANOTHER in error.response["Error"]["Message"]
    assert OURS in error.response["Error"]["Message"]


def test_a_package_for_this_python_is_taken(functions, packed):
    python = f"{sys.version_info.major}{sys.version_info.minor}-{platform.machine()}"
    machine = X86_64 if platform.machine() == "x86_64" else AARCH64
    assert functions.invoke(functions.create("", Code={"ZipFile": packed(extension(python, machine))})) == 1


@pytest.mark.parametrize(
    "options", [{"Runtime": "nodejs22.x"}, {"PackageType": "Image", "Code": {"ImageUri": "an/image"}}]
)
def test_what_cannot_run_here_is_refused(functions, options):
    with pytest.raises(ClientError, match="not supported"):
        functions.create("", **options)


def test_a_function_cannot_be_changed_to_what_cannot_run_here(session, functions):
    name = functions.create("def handler(event, context): return 'still here'")
    with pytest.raises(ClientError, match=r"nodejs22\.x is not supported"):
        session.client("lambda").update_function_configuration(FunctionName=name, Runtime="nodejs22.x")
    assert functions.invoke(name) == "still here"


def stack_of_a_function_without_its_package(session, role: str) -> str:
    """Return the status that a stack ends with whose function's package is not in S3."""
    function = {
        "Type": "AWS::Lambda::Function",
        "Properties": {
            "Runtime": "python3.13",
            "Handler": "app.handler",
            "Role": role,
            "Code": {"S3Bucket": "no-such-bucket", "S3Key": "no-such-key"},
        },
    }
    cloudformation, name = session.client("cloudformation"), f"without-{time.monotonic_ns()}"
    cloudformation.create_stack(StackName=name, TemplateBody=json.dumps({"Resources": {"Function": function}}))

    def status() -> str:
        return cloudformation.describe_stacks(StackName=name)["Stacks"][0]["StackStatus"]

    return wait_for(lambda: not (now := status()).endswith("PROGRESS") and now, status)


def test_a_stack_fails_whose_function_has_no_package(session, role_for):
    assert stack_of_a_function_without_its_package(session, role_for("lambda.amazonaws.com")) == "ROLLBACK_COMPLETE"


def test_upstream_makes_a_function_that_answers_an_invented_result(upstream):
    role = "arn:aws:iam::000000000000:role/any"
    assert stack_of_a_function_without_its_package(upstream, role) == "CREATE_COMPLETE"


def test_layers_are_on_the_import_path(session, functions, packed):
    layer = session.client("lambda").publish_layer_version(
        LayerName="words", Content={"ZipFile": packed({"python/words.py": "WORD = 'from a layer'"})}
    )["LayerVersionArn"]
    name = functions.create("from words import WORD\ndef handler(event, context): return WORD", Layers=[layer])
    assert functions.invoke(name) == "from a layer"


def test_step_functions_catches_by_the_exceptions_class(functions, machines):
    name = functions.create(RAISES)
    ended = machines.run(
        {
            "QueryLanguage": "JSONata",
            "StartAt": "Call",
            "States": {
                "Call": {
                    "Type": "Task",
                    "Resource": "arn:aws:states:::lambda:invoke",
                    "Arguments": {"FunctionName": name, "Payload": "raise"},
                    "Catch": [
                        {"ErrorEquals": ["OwnError"], "Output": "{% $states.errorOutput.Cause %}", "Next": "End"}
                    ],
                    "End": True,
                },
                "End": {"Type": "Succeed"},
            },
        }
    )
    assert json.loads(json.loads(ended["output"]))["errorMessage"] == "as asked"


def call(function: str) -> dict[str, Any]:
    state = {"Type": "Task", "Resource": "arn:aws:states:::lambda:invoke", "Arguments": {"FunctionName": function}}
    return {"QueryLanguage": "JSONata", "StartAt": "Call", "States": {"Call": {**state, "End": True}}}


def test_the_state_machines_role_decides(functions, machines):
    ended = machines.run(call(functions.create(RAISES)), statements=[])
    assert ended["error"] == "Lambda.AWSLambdaException"
    assert "not authorized to perform: lambda:InvokeFunction" in ended["cause"]


def test_upstream_does_not_ask_the_role(upstream_functions, upstream_machines):
    assert upstream_machines.run(call(upstream_functions.create(RAISES)), statements=[])["status"] == "SUCCEEDED"
