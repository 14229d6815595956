"""The run's page: one file without scripts or links to elsewhere, in light and dark. Everything shown is escaped."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

MOST_CLASSES_IN_MATRIX = 40

STYLE = """
:root { color-scheme: light dark; --line: #8884; --good: #1a7f37; --bad: #cf222e; --cell: 31 111 235; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; border-bottom: 1px solid var(--line); }
table { border-collapse: collapse; }
td, th { padding: .15rem .6rem; text-align: left; border-bottom: 1px solid var(--line); }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
.good { color: var(--good); } .bad { color: var(--bad); }
.scroll { overflow-x: auto; } pre { white-space: pre-wrap; }
"""


def render(summary: dict[str, Any], left: dict[str, Any], unread: Sequence[str]) -> str:
    """Return the page. left: the run's documents by contract; sections of documents that are missing are left out."""
    sections = [_outcome(summary), *(f"<p class=bad>{escape(sentence)}</p>" for sentence in unread)]
    if "plan" in left:
        sections.append(_plan(left["plan"]))
    if "leaderboard" in left:
        sections.append(_leaderboard(left["leaderboard"]))
    if "debugger_review" in left:
        sections.append(_findings(left["debugger_review"]))
    if "evaluation" in left:
        sections.append(_evaluation(left["evaluation"], left.get("verdict")))
    if "verification" in left:
        sections.append(_verification(left["verification"]))
    sections.append(_states(summary["states"]))
    title = escape(f"Run {summary['run_id']}: {summary['status']}")
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{title}</title><style>{STYLE}</style><h1>{title}</h1>{''.join(sections)}</html>\n"
    )


def _outcome(summary: dict[str, Any]) -> str:
    if summary["status"] == "failed":
        said = f"<p class=bad><b>{escape(summary['error'])}</b> in {escape(summary['state'])}</p>"
        return f"{said}<pre>{escape(summary['cause'])}</pre>"
    accuracy = f"{summary['test_accuracy']:.4f}" if summary["test_accuracy"] is not None else "unknown"
    return (
        f"<p class=good>The endpoint <b>{escape(str(summary['endpoint']))}</b> serves it; test accuracy {accuracy}.</p>"
    )


def _plan(plan: dict[str, Any]) -> str:
    splits = plan["dataset"]["splits"]
    tuning, model = plan["input"]["tuning"], plan["input"]["model"]
    rows = [
        ("Execution", plan["execution_arn"]),
        ("Planned", plan["created_at"]),
        ("Data set", f"{plan['dataset']['uri']}, {len(plan['dataset']['classes'])} classes"),
        ("Images", ", ".join(f"{name} {split['images']}" for name, split in splits.items())),
        ("Network", f"{model['architecture']}, weights {model['weights']}, {model['image_size_px']} px"),
        ("Tuning", f"{tuning['mode']}, {tuning['strategy']}, {tuning['max_jobs']} trials of {tuning['epochs']} epochs"),
        ("Training", f"{plan['input']['training']['epochs']} epochs, seed {plan['input']['seed']}"),
        ("Training code", plan["code"]["training"]["sha256"]),
        ("Inference code", plan["code"]["inference"]["sha256"]),
        ("Images of containers", f"{plan['images']['training']}, {plan['images']['serving']}"),
    ]
    return f"<h2>Plan</h2>{_table((), rows)}"


def _leaderboard(leaderboard: dict[str, Any]) -> str:
    names = sorted({name for trial in leaderboard["trials"] for name in trial["hyperparameters"]})
    rows = [
        (
            trial["rank"] or "",
            trial["job"],
            trial["status"],
            "" if trial["objective"] is None else f"{trial['objective']:.4f}",
            *(trial["hyperparameters"].get(name, "") for name in names),
            "" if trial["seconds"] is None else f"{trial['seconds']:.1f}",
            trial["failure_reason"] or "",
        )
        for trial in leaderboard["trials"]
    ]
    return f"<h2>Trials</h2>{_table(('#', 'job', 'status', 'objective', *names, 'seconds', 'reason'), rows)}"


def _findings(review: dict[str, Any]) -> str:
    rows = [
        (finding["rule"], finding["status"], "" if finding["step"] is None else finding["step"], finding["message"])
        for finding in review["findings"]
    ]
    said = f"<p>{escape(review['verdict'])}: {escape(review['reason'])}</p>"
    return f"<h2>Debugger</h2>{said}{_table(('rule', 'status', 'step', 'what it means'), rows)}"


def _evaluation(evaluation: dict[str, Any], verdict: dict[str, Any] | None) -> str:
    said = f"<p>{escape(verdict['reason'])}</p>" if verdict else ""
    scores = [
        ("Accuracy", f"{evaluation['accuracy']:.4f} on {evaluation['images']} images of {evaluation['split']}"),
        ("Top-5 accuracy", f"{evaluation['top5_accuracy']:.4f}"),
        ("Macro F1", f"{evaluation['macro_f1']:.4f}"),
        ("Calibration error", f"{evaluation['calibration_error']:.4f}"),
        ("Always the most common class", f"{evaluation['majority_share']:.4f}"),
    ]
    classes = [
        (one["label"], one["images"], f"{one['precision']:.4f}", f"{one['recall']:.4f}", f"{one['f1']:.4f}")
        for one in evaluation["per_class"]
    ]
    mistakes = [
        (one["path"], one["label"], one["predicted"], f"{one['probability']:.4f}") for one in evaluation["mistakes"]
    ]
    return (
        f"<h2>Evaluation</h2>{said}{_table((), scores)}{_confusion_matrix(evaluation)}"
        f"<h2>Classes</h2>{_table(('class', 'images', 'precision', 'recall', 'F1'), classes)}"
        f"<h2>Worst mistakes</h2>{_table(('image', 'is', 'taken for', 'probability'), mistakes)}"
    )


def _confusion_matrix(evaluation: dict[str, Any]) -> str:
    labels, matrix = evaluation["classes"], evaluation["confusion_matrix"]
    if len(labels) > MOST_CLASSES_IN_MATRIX:
        return f"<p>The confusion matrix of {len(labels)} classes is in evaluation.json.</p>"
    head = "".join(f"<th>{escape(label)}</th>" for label in labels)
    rows = "".join(
        f"<tr><th>{escape(label)}</th>{''.join(_shaded(count, sum(row)) for count in row)}</tr>"
        for label, row in zip(labels, matrix, strict=True)
    )
    table = f"<div class=scroll><table><tr><th></th>{head}</tr>{rows}</table></div>"
    return f"<h2>Confusion matrix</h2><p>Rows: true; columns: predicted.</p>{table}"


def _shaded(count: int, images: int) -> str:
    share = count / images if images else 0
    return f"<td class=number style='background: rgb(var(--cell) / {share * 0.6:.2f})'>{count}</td>"


def _verification(verification: dict[str, Any]) -> str:
    rows = [
        (
            answer["path"],
            f"{answer['expected']} {answer['expected_probability']:.4f}",
            f"{answer['answered']} {answer['answered_probability']:.4f}",
            "yes" if answer["matches"] else "no",
            f"{answer['milliseconds']:.1f}",
        )
        for answer in verification["answers"]
    ]
    head = ("image", "evaluation answered", "endpoint answered", "same", "ms")
    return f"<h2>Verification of {escape(verification['endpoint'])}</h2>{_table(head, rows)}"


def _states(states: Sequence[dict[str, Any]]) -> str:
    rows = [
        (state["name"], "" if state["seconds"] is None else f"{state['seconds']:.1f}", state["visits"])
        for state in states
    ]
    return f"<h2>States</h2>{_table(('state', 'seconds', 'visits'), rows)}"


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    top = f"<tr>{''.join(f'<th>{escape(cell)}</th>' for cell in head)}</tr>" if head else ""
    body = "".join(f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows)
    return f"<div class=scroll><table>{top}{body}</table></div>"
