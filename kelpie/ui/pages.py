"""The pages, and the parts of them that are fetched again while something goes on. Nothing here changes anything."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse

from kelpie import dataset, inbox, reports, status
from kelpie import logs as job_logs
from kelpie.errors import InvalidInput
from kelpie.inbox import content_type
from kelpie.progress import TUNING_STATE, Progress, is_final_training
from kelpie.summary import reason
from kelpie.ui import form, plots
from kelpie.ui.guard import STRANGERS_POLICY
from kelpie.ui.readings import Readings
from kelpie.watch import duration, short_number

CARDS_SHOWN = 24
MOST_RESULTS_LISTED = 10_000
LOG_LINES = 300
SHOWN_BY_BROWSERS = ("image/jpeg", "image/png", "image/gif", "image/bmp", "image/webp")
KEY = re.compile(r"inbox/.{1,1000}", re.DOTALL)
RESULT_KEY = re.compile(r"results/[0-9a-f]{64}/[A-Za-z0-9._-]+\.json")
MEDIA_TYPES = {".html": "text/html", ".json": "application/json", ".jpg": "image/jpeg", ".png": "image/png"}
BLOCK_BYTES = 1 << 18


class Pages:
    """One method for each address. Each takes the request and answers; what it raises becomes a page of its own."""

    def __init__(self, readings: Readings, action_key: str):
        self._readings = readings
        self._stack = readings.stack
        self._templates = templates(action_key, readings.stack.name, readings.stack.endpoint_url)

    def overview(self, _request: Request) -> Response:
        return self._page("overview.html", overview=self._overview())

    def overview_parts(self, _request: Request) -> Response:
        html = self._templates.get_template("parts/overview.html").render(overview=self._overview())
        return JSONResponse({"parts": {"overview": html}, "again": True})

    def run(self, request: Request) -> Response:
        progress = self._readings.run(request.path_params["name"])
        return self._page("run.html", run=self._shown(progress), parts=self._parts(progress))

    def run_parts(self, request: Request) -> Response:
        progress = self._readings.run(request.path_params["name"])
        return JSONResponse({"parts": self._parts(progress), "again": not progress.over})

    def run_logs(self, request: Request) -> Response:
        name = request.path_params["name"]
        source = request.query_params.get("of") or name
        if source != name and not re.fullmatch(r"[A-Za-z0-9-]{1,63}", source):
            raise InvalidInput(f"{source}: is no name of a job")
        try:
            lines = job_logs.read(self._stack, source, LOG_LINES)
        except InvalidInput:
            lines = []
        html = self._templates.get_template("parts/logs.html").render(lines=lines)
        return JSONResponse({"parts": {"log-lines": html}, "again": not self._readings.run(name).over})

    def start(self, _request: Request) -> Response:
        datasets = dataset.uploaded(self._stack.client("s3"), self._stack.bucket)
        description = form.dataset_description()
        return self._page("start.html", groups=form.groups(), datasets=datasets, description=description)

    def inbox(self, _request: Request) -> Response:
        answers, listed, complete = inbox.newest_answers(self._stack, CARDS_SHOWN, MOST_RESULTS_LISTED)
        return self._page(
            "inbox.html",
            endpoint=status.endpoint(self._stack),
            waiting=self._readings.waiting(),
            cards=[card(answer) for answer in answers],
            listed=listed,
            complete=complete,
        )

    def inbox_card(self, request: Request) -> Response:
        """Answer with the card of a result, or with 204 as long as there is none."""
        key = request.query_params.get("result", "")
        if not RESULT_KEY.fullmatch(key):
            raise InvalidInput(f"{key}: is no key of a result")
        answer = inbox.answer(self._stack, key)
        if answer is None:
            return Response(status_code=204)
        return HTMLResponse(self._templates.get_template("parts/card.html").render(card=card(answer)))

    def inbox_image(self, request: Request) -> Response:
        """Answer with a picture as it lies in the inbox, if it is one that browsers show."""
        key, version = request.query_params.get("key", ""), request.query_params.get("version", "")
        if not KEY.fullmatch(key):
            raise InvalidInput(f"{key}: is no key of the inbox")
        s3 = self._stack.client("s3")
        try:
            found = s3.get_object(Bucket=self._stack.bucket, Key=key, **({"VersionId": version} if version else {}))
        except s3.exceptions.NoSuchKey as error:
            raise HTTPException(404, f"{key} is not in the inbox any more") from error
        content = found["Body"].read()
        media_type = content_type(content)
        if media_type not in SHOWN_BY_BROWSERS:
            raise HTTPException(415, f"{key} is no picture that a browser shows")
        headers = {"content-security-policy": STRANGERS_POLICY, "cache-control": "private, max-age=3600"}
        return Response(content, media_type=media_type, headers=headers)

    def file(self, request: Request) -> Response:
        """Answer with what a run left in the bucket: its report, or a document that the report links."""
        progress = self._readings.run(request.path_params["name"])
        path = request.path_params["path"]
        s3 = self._stack.client("s3")
        try:
            found = s3.get_object(Bucket=self._stack.bucket, Key=f"runs/{progress.run}/{path}")
        except s3.exceptions.NoSuchKey as error:
            raise HTTPException(404, f"the run has left no {path}") from error
        media_type = MEDIA_TYPES.get(Path(path).suffix, "application/octet-stream")
        headers = {"content-security-policy": STRANGERS_POLICY, "content-length": str(found["ContentLength"])}
        return StreamingResponse(found["Body"].iter_chunks(BLOCK_BYTES), media_type=media_type, headers=headers)

    def problem(self, _request: Request, message: str, status_code: int) -> Response:
        return self._page("problem.html", status_code=status_code, message=message)

    def _page(self, template: str, status_code: int = 200, **values: Any) -> HTMLResponse:
        return HTMLResponse(self._templates.get_template(template).render(**values), status_code)

    def _overview(self) -> dict[str, Any]:
        return {**self._readings.status(), **self._readings.waiting()}

    def _parts(self, progress: Progress) -> dict[str, str]:
        """Return the HTML of each part of a run's page by the id of its place."""
        values = {"run": self._shown(progress), "progress": progress}
        names = ("now", "outcome", "actions", "path", "curves", "trials", "findings")
        return {name: self._templates.get_template(f"parts/{name}.html").render(**values) for name in names}

    def _shown(self, progress: Progress) -> dict[str, Any]:
        name = progress.described["name"]
        return {
            "name": name,
            "id": progress.run,
            "address": f"/runs/{quote(name, safe='')}",
            "status": progress.status,
            "over": progress.over,
            "started": f"{progress.described['startDate'].astimezone():%Y-%m-%d %H:%M:%S}",
            "now": now_line(progress),
            "reports": reports.listed(self._stack, progress.run) if progress.over else {},
            "trials": trial_rows(progress),
            "searched": sorted({name for trial in progress.trials for name in trial.hyperparameters}),
            "trials_chart": plots.trials(progress.trials),
            "trainings": plots.trainings(progress),
        }


def now_line(progress: Progress) -> str:
    """Say in a line what goes on: states, trials, epoch."""
    if progress.over:
        cause = progress.described.get("error")
        return f"Ended {progress.status} after {duration(progress.seconds)}" + (f": {cause}" if cause else "")
    parts = [node.name for node in progress.path if node.standing == "now"]
    if parts == [TUNING_STATE] and progress.trials:
        ended = [trial for trial in progress.trials if trial.ended]
        parts.append(f"{len(ended)} of {len(progress.trials)} trials ended")
        scores = [trial.objective for trial in ended if trial.objective is not None]
        parts += [f"best {max(scores):.4f}"] if scores else []
    training = [epochs[-1] for job, epochs in progress.epochs.items() if is_final_training(job, progress.run)]
    if training and training[-1].job in progress.jobs:
        parts.append(f"epoch {training[-1].number} of {training[-1].of}")
    return " · ".join(parts) or "Starting"


def trial_rows(progress: Progress) -> list[dict[str, Any]]:
    """Return a row for each trial, best first; those without an objective last."""
    rows = []
    for number, trial in enumerate(progress.trials, start=1):
        epochs = progress.epochs.get(trial.name)
        at = f"epoch {epochs[-1].number} of {epochs[-1].of}" if epochs and not trial.ended else ""
        rows.append({"number": number, "trial": trial, "at": at})
    return sorted(
        rows, key=lambda row: -1.0 if row["trial"].objective is None else row["trial"].objective, reverse=True
    )


def card(answer: dict[str, Any]) -> dict[str, Any]:
    """Return what a result's card shows (contracts/classification.schema.json)."""
    key, version = answer["key"], answer["object_version"]
    shown = answer["content_type"] in SHOWN_BY_BROWSERS
    return {
        "name": key.rpartition("/")[2],
        "key": key,
        "status": answer["status"],
        "label": answer["label"],
        "probability": answer["probability"],
        "predictions": answer["predictions"][:3],
        "reason": answer["reason"],
        "answered_at": answer["answered_at"],
        "image": f"/inbox/image?key={quote(key, safe='')}&version={quote(version, safe='')}" if shown else None,
    }


def templates(action_key: str, stack_name: str, endpoint_url: str) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"action_key": action_key, "stack_name": stack_name, "endpoint_url": endpoint_url}
    environment.filters |= {
        "duration": duration,
        "short": short_number,
        "cause": reason,
        "segment": functools.partial(quote, safe=""),
    }
    return environment
