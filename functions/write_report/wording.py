"""Numbers, times and places in the form in which a person reads them."""

from typing import Any
from urllib.parse import quote

SECONDS_PER_MINUTE = 60
SECONDS_PER_HOUR = 3600


def percent(share: float | None, places: int = 1) -> str:
    return "–" if share is None else f"{100 * share:.{places}f}\u00a0%"


def figures(value: Any) -> str:
    """Return a number with four significant figures; anything else as it is. A hyperparameter is a number in text."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    if number == int(number) and abs(number) < 1e15:
        return f"{int(number):,}".replace(",", "\u202f")
    return f"{number:.4g}"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 10:
        return f"{seconds:.1f}\u00a0s"
    if seconds < 2 * SECONDS_PER_MINUTE:
        return f"{seconds:.0f}\u00a0s"
    minutes = round(seconds / SECONDS_PER_MINUTE)
    if minutes < 2 * SECONDS_PER_MINUTE:
        return f"{minutes}\u00a0min"
    return f"{minutes // 60}\u00a0h {minutes % 60:02}\u00a0min"


def dollars(usd: float | None) -> str:
    """Return a price to the cent, and a small one to four places."""
    if usd is None:
        return "–"
    return f"${usd:.2f}" if usd >= 0.1 or usd == 0 else f"${usd:.4f}"


def counted(number: int, singular: str, plural: str | None = None) -> str:
    return f"{figures(number)} {singular if number == 1 else plural or singular + 's'}"


DOMAINS = {
    "aws": "console.aws.amazon.com",
    "aws-cn": "console.amazonaws.cn",
    "aws-us-gov": "console.amazonaws-us-gov.com",
}


class Console:
    """Addresses in AWS's console of a region, whichever partition it is in."""

    def __init__(self, execution_arn: str):
        _, self._partition, _, self._region, *_ = execution_arn.split(":", 5)
        self._execution_arn = execution_arn

    def execution(self) -> str:
        return self._at("states", f"#/v2/executions/details/{self._execution_arn}")

    def sagemaker(self, kind: str, name: str) -> str:
        """kind: jobs, hyper-tuning-jobs, models, endpointConfig or endpoints, as the console names them."""
        return self._at("sagemaker", f"#/{kind}/{quote(name)}")

    def s3(self, uri: str) -> str:
        """Return the page of an object, or of a folder if the s3:// URI ends with a slash."""
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        kind = "buckets" if key.endswith("/") or not key else "object"
        return f"https://s3.{self._domain()}/s3/{kind}/{bucket}?region={self._region}&prefix={quote(key)}"

    def logs(self, group: str, stream: str) -> str:
        return self._at("cloudwatch", f"#logsV2:log-groups/log-group/{_twice(group)}/log-events/{_twice(stream)}")

    def _at(self, service: str, place: str) -> str:
        return f"https://{self._region}.{self._domain()}/{service}/home?region={self._region}{place}"

    def _domain(self) -> str:
        return DOMAINS.get(self._partition, DOMAINS["aws"])


def _twice(text: str) -> str:
    """CloudWatch's console writes escapes of escapes, with $25 for the percent sign of the second."""
    return quote(quote(text, safe=""), safe="").replace("%", "$")
