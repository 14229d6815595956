"""The one error that callers of the local SageMaker see, and the forms of it that every resource needs.

Codes and wording are SageMaker's own, so that a client that matches them behaves here as it does on AWS.
`UnsupportedOperation` is the one code of our own: it names what this service does not do, where any other answer would
be an invention.
"""


class ServiceError(Exception):
    """An error answer of the API: `code` is the exception's name on the wire, `http_status` its status."""

    def __init__(self, code: str, message: str, http_status: int = 400):
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.http_status = http_status


def validation_error(message: str) -> ServiceError:
    return ServiceError("ValidationException", message)


def resource_in_use(message: str) -> ServiceError:
    return ServiceError("ResourceInUse", message)


def resource_not_found(message: str) -> ServiceError:
    return ServiceError("ResourceNotFound", message)


def resource_limit_exceeded(message: str) -> ServiceError:
    return ServiceError("ResourceLimitExceeded", message)


def unsupported(what: str, reason: str) -> ServiceError:
    return ServiceError("UnsupportedOperation", f"{what} is not supported by the local SageMaker: {reason}")
