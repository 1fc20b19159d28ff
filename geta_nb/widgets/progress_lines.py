"""How a run without a front end says how far it is: a bar on a terminal, a line of text now and then anywhere else.

The lines hold nothing that differs from run to run, so that an executed notebook can be compared with the one before.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from geta_nb.display.training import percent_or_number
from geta_nb.display.wording import clean, count, number

MOST_LINES = 20


def progress_reporter(total_steps: int, every: int) -> Callable[[Any, bool], None]:
    """Return ``report(run, last)``, to be called while waiting; nothing is written before its first call."""
    state: dict[str, Any] = {"said": -1, "line": 0, "bar": None}
    interval = max(every, -(-total_steps // MOST_LINES))

    def report(run: Any, last: bool) -> None:
        if _on_terminal():
            _draw_bar(run, state, last)
            return
        for record in run.history[_first_unsaid(run, state["said"]) :]:
            state["said"] = record["step"]
            if record["step"] // interval > state["line"] // interval or record["step"] == total_steps:
                state["line"] = record["step"]
                _write(describe(record, total_steps))
        if last and run.state in {"stopped", "failed"} and state.get("ended") != (run.state, run.step_count):
            state["ended"] = (run.state, run.step_count)
            _write(f"{run.state} at step {count(run.step_count)} of {count(total_steps)}; run.start() goes on from there")

    return report


def describe(record: dict[str, Any], total_steps: int) -> str:
    """Return one record as a line.

    >>> describe({"step": 5, "stage": "joint", "loss": 0.5, "metrics": {"accuracy": 0.9}}, 10)
    'step 5 of 10 · joint · loss 0.5 · accuracy 90 %'
    """
    parts = [f"step {count(record['step'])} of {count(total_steps)}", record["stage"]]
    parts += [f"loss {number(record['loss'])}"] if record["loss"] is not None else []
    parts += [f"{clean(name)} {percent_or_number(value)}" for name, value in record["metrics"].items()]
    return " · ".join(parts)


def _first_unsaid(run: Any, said: int) -> int:
    return next((i for i, step in enumerate(run.history.steps) if step > said), len(run.history))


def _on_terminal() -> bool:
    return "ipykernel" not in sys.modules and sys.stderr is not None and sys.stderr.isatty()


def _draw_bar(run: Any, state: dict[str, Any], last: bool) -> None:
    from tqdm.auto import tqdm  # only where a terminal will show it

    if state["bar"] is None:
        state["bar"] = tqdm(total=run.total_steps, initial=run.first_step, unit="step")
    bar = state["bar"]
    bar.update(run.step_count - bar.n)
    if len(run.history):
        bar.set_postfix_str(f"{run.history[-1]['stage']}", refresh=False)
    if last:
        bar.close()
        state["bar"] = None


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
