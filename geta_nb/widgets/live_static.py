"""The static forms of a run: one line, an HTML fragment and a picture, readable without a kernel. Pure functions of the run."""

from __future__ import annotations

from typing import Any

from geta_nb.display.allocation import allocation_part
from geta_nb.display.markup import cards, figure, fragment, note
from geta_nb.display.training import percent_or_number, training_picture
from geta_nb.display.wording import bits, clean, count, number, percent
from geta_nb.qasso import Schedule

MIN_SCHEDULED = 4


def run_text(run: Any) -> str:
    """Return state, step and what was measured last, on one line."""
    parts = [run.state, f"step {count(run.step_count)} of {count(run.total_steps)}"]
    if len(run.history):
        last = run.history[-1]
        parts += [last["stage"]] + ([f"loss {number(last['loss'])}"] if last["loss"] is not None else [])
        parts += [f"{clean(name)[:40]} {percent_or_number(value)}" for name, value in list(last_metrics(run).items())[:4]]
    if run.error is not None:
        parts.append(clean(f"{type(run.error).__name__}: {run.error}")[:200])
    return f"LiveRun({', '.join(parts)})"


def last_metrics(run: Any) -> dict[str, float]:
    """Return the latest value of each metric."""
    return {
        name: next(value for value in reversed(values) if value is not None) for name, values in run.history.metrics.items()
    }


def run_schedule(run: Any) -> Schedule | None:
    """Return the optimizer's schedule; before there is an optimizer, the default of this length; None for less than a step a stage."""
    found = getattr(run.optimizer, "schedule", None)
    if isinstance(found, Schedule):
        return found
    return Schedule.for_steps(run.total_steps) if run.total_steps >= MIN_SCHEDULED else None


def run_svg(run: Any) -> str:
    """Return the picture of the run so far."""
    schedule = run_schedule(run) or Schedule(0, 0, 0, 1, 1)
    metric = next(iter(run.history.metrics), "accuracy")
    records = [{**record, **record["metrics"]} for record in run.history]
    earlier = {name: [{**record, **record["metrics"]} for record in history] for name, history in run.compare.items()}
    return training_picture(records, schedule, total_steps=run.total_steps, metric=metric, earlier=earlier)


def run_html(run: Any) -> str:
    """Return headline numbers and the picture."""
    last = run.history[-1] if len(run.history) else {}
    widths = list((last.get("bits") or {}).values())
    groups = last.get("n_groups")
    head = [
        ("run", run.state, f"step {count(run.step_count)} of {count(run.total_steps)}"),
        ("stage", clean(last.get("stage", "not started")), ""),
        ("loss", number(last.get("loss")), "mean since the record before"),
        *((clean(name), percent_or_number(value), "last measured") for name, value in list(last_metrics(run).items())[:4]),
        ("weight bits", bits(sum(widths) / len(widths) if widths else None), "mean over layers"),
        ("groups zero", percent(last["zero_groups"] / groups) if groups and last.get("zero_groups") is not None else "–", ""),
    ]
    parts = [cards(head), figure(run_svg(run), "stages, loss and metrics, bits of each layer, what each family keeps")]
    parts.append(allocation_part(getattr(run.optimizer, "plan", None)))
    if run.error is not None:
        parts.insert(0, note(f"{type(run.error).__name__}: {run.error}"))
    return fragment("Training run", *parts)
