"""The process that runs one Python function, invocation by invocation, for the local cloud.

It is a script of the standard library only: what a handler can import is what Lambda's runtime carries (boto3) and
what its package brings. The cloud writes JSON lines to standard input and reads JSON lines from standard output;
a handler sees neither. When its input ends, because the cloud has ended in whatever way, the process and all
that it started end at once.

Errors have the form of Lambda's Python runtime: errorType is the exception's class name.
"""

import importlib
import io
import json
import os
import signal
import sys
import threading
import time
import traceback
from queue import SimpleQueue

END_OF_LOG = "\x1eend of log"


def main():
    requests, answer = take_over_standard_streams()
    init = json.loads(requests.get())
    for folder in reversed([*init["import_path"], init["code_folder"]]):
        sys.path.insert(0, folder)
    sys.path.append(init["runtime_folder"])
    handler, failure = load(init["handler"])
    answer({"ready": True})
    while True:
        request = json.loads(requests.get())
        if handler is None:
            outcome = {"error": {**failure, "requestId": request["request_id"]}, "exit": True}
        else:
            outcome = invoke(handler, request, init)
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(2, f"{END_OF_LOG}\n".encode())
        answer(outcome)
        if "exit" in outcome:
            sys.exit(1)


def take_over_standard_streams():
    """Return the queue of request lines and the function that answers one; what a handler prints goes to the log."""
    incoming, outgoing = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb", closefd=False), "utf-8", "backslashreplace", line_buffering=True)
    sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb", closefd=False), "utf-8", "backslashreplace", line_buffering=True)
    requests = SimpleQueue()

    def read():
        with os.fdopen(incoming, encoding="utf-8") as lines:
            for line in lines:
                requests.put(line)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=read, name="requests", daemon=True).start()
    answers = os.fdopen(outgoing, "w", encoding="utf-8")

    def answer(document):
        answers.write(json.dumps(document) + "\n")
        answers.flush()

    return requests, answer


def load(handler):
    """Return the handler, or None and the error that every invocation then gets."""
    module_name, _, function_name = handler.rpartition(".")
    try:
        module = importlib.import_module(module_name.replace("/", "."))
        return getattr(module, function_name), None
    except ImportError as error:
        return None, failed("Runtime.ImportModuleError", f"Unable to import module '{module_name}': {error}")
    except AttributeError as error:
        if traceback.extract_tb(error.__traceback__)[-1].filename == __file__:
            reason = f"Handler '{function_name}' missing on module '{module_name}'"
            return None, failed("Runtime.HandlerNotFound", reason)
        return None, failed_with(error)
    except SyntaxError as error:
        return None, failed("Runtime.UserCodeSyntaxError", f"Syntax error in module '{module_name}': {error}")
    except BaseException as error:  # noqa: BLE001 - whatever a handler raises is its answer
        return None, failed_with(error)


def invoke(handler, request, init):
    os.environ["_X_AMZN_TRACE_ID"] = request["trace_id"] or ""
    try:
        result = handler(request["event"], Context(request, init))
    except SystemExit as error:
        reason = f"RequestId: {request['request_id']} Error: Runtime exited with error: exit status {error.code or 0}"
        return {"error": failed("Runtime.ExitError", reason), "exit": True}
    except BaseException as error:  # noqa: BLE001 - whatever a handler raises is its answer
        return {"error": {**failed_with(error), "requestId": request["request_id"]}}
    try:
        json.dumps(result)
    except (TypeError, ValueError) as error:
        return {"error": failed("Runtime.MarshalError", f"Unable to marshal response: {error}")}
    return {"result": result}


def failed_with(error):
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    print(f"[ERROR] {type(error).__name__}: {error}\n{''.join(traceback.format_exception(error))}", file=sys.stderr)
    return {
        "errorMessage": str(error),
        "errorType": type(error).__name__,
        "stackTrace": traceback.format_list(own),
    }


def failed(error_type, message):
    print(f"[ERROR] {error_type}: {message}", file=sys.stderr)
    return {"errorMessage": message, "errorType": error_type, "stackTrace": []}


class Context:
    """https://docs.aws.amazon.com/lambda/latest/dg/python-context.html"""

    identity = None
    client_context = None

    def __init__(self, request, init):
        self.function_name = os.environ["AWS_LAMBDA_FUNCTION_NAME"]
        self.function_version = os.environ["AWS_LAMBDA_FUNCTION_VERSION"]
        self.memory_limit_in_mb = os.environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]
        self.log_group_name = os.environ["AWS_LAMBDA_LOG_GROUP_NAME"]
        self.log_stream_name = os.environ["AWS_LAMBDA_LOG_STREAM_NAME"]
        self.invoked_function_arn = request["function_arn"]
        self.aws_request_id = request["request_id"]
        self._deadline = time.monotonic() + init["timeout_seconds"]

    def get_remaining_time_in_millis(self):
        return max(0, int((self._deadline - time.monotonic()) * 1000))


if __name__ == "__main__":
    main()
