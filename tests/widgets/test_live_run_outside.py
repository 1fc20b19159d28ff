"""Claims about LiveRun in other processes: an interrupt on a terminal and in a kernel, papermill, an executed notebook without a kernel."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import nbconvert
import nbformat
import papermill
import pytest
from jupyter_client.manager import start_new_kernel

import geta_nb as gt
from geta_nb.widgets.history import History
from tests.display.checks import check_inert, check_one_line, check_svg
from tests.widgets.live_runs import Training

ROOT = Path(__file__).resolve().parents[2]

SET_UP = """
import signal, time, torch
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job is born deaf to it
torch.set_num_threads(1)
import geta_nb as gt
from tests.widgets.live_runs import Training
training = Training({total})
def step(i):
    time.sleep({pause})
    return training.step(i)
run = gt.LiveRun(step, training.geta, training.optimizer, total_steps={total}, evaluate=training.evaluate, every={every}, **{options})
"""


def set_up(total=40, pause=0.0, every=10, options="{}"):
    return SET_UP.format(total=total, pause=pause, every=every, options=options)


@pytest.fixture
def here(monkeypatch):
    """Other processes find the package of this checkout and the tests' nets."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def python(script: str, **options) -> subprocess.Popen:
    command = [sys.executable, "-u", "-W", "ignore", "-c", script]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


@pytest.mark.slow
@pytest.mark.parametrize("waiting", ["run.wait()", "asyncio.run(main())"])
@pytest.mark.usefixtures("here")
def test_an_interrupt_stops_a_waiting_run_gracefully_with_everything_saved(waiting, tmp_path):
    path = tmp_path / "run.safetensors"
    script = set_up(total=100_000, pause=0.005, every=100_000, options=f"{{'checkpoint': {str(path)!r}}}") + textwrap.dedent(f"""
        import asyncio, sys, threading
        async def main():
            await run
        def waits():  # the main thread stands in the wait of the run, or in that of the event loop
            frame, names = sys._current_frames()[threading.main_thread().ident], set()
            while frame:
                names.add(frame.f_code.co_name)
                frame = frame.f_back
            return names & {{"wait", "select"}}
        def say():
            while run.step_count < 5 or not waits():
                time.sleep(0.01)
            time.sleep(0.2)
            print("ready")
        run.start()
        threading.Thread(target=say).start()
        {waiting}
        print(run.state, run.step_count, training.optimizer.steps_done, len(training.calls))
    """)
    process = python(script)
    line = process.stdout.readline()
    assert line.strip() == "ready", process.communicate()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    state, *counts = out.splitlines()[-1].split()
    assert state == "stopped" and len(set(counts)) == 1 and 5 <= int(counts[0]) < 100_000, out
    assert "Traceback" not in err
    resumed = gt.GETA.resume(path, Training(8).geta.model, Training(8).geta.example_inputs)
    budget, schedule = gt.Budget(0.5), gt.Schedule.for_steps(100_000)
    import torch

    assert resumed.qasso(torch.optim.SGD, budget=budget, schedule=schedule, lr=0.05).steps_done == int(counts[0])


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_a_script_that_ends_while_a_run_goes_on_ends_cleanly():
    process = python(set_up(total=100_000, pause=0.005, every=100_000) + "run.start()\nrun.wait(0.3)\nprint(run.state)")
    out, err = process.communicate(timeout=300)
    assert (process.returncode, out.split()[-1], err) == (0, "running", "")


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_a_kernel_interrupt_stops_a_waiting_cell_and_the_run_keeps_everything():
    manager, client = start_new_kernel(kernel_name="python3", extra_arguments=["--log-level=CRITICAL"])
    try:
        cell = set_up(total=100_000, pause=0.005, every=100_000) + "run.start();"
        reply = client.execute_interactive(cell, timeout=300, output_hook=lambda message: None)
        assert reply["content"]["status"] == "ok"
        for cell in ("print('waits'); run.wait();", "run.start(); print('waits'); await run;"):
            number = client.execute(cell)
            while "waits" not in client.get_iopub_msg(timeout=300)["content"].get("text", ""):
                pass
            time.sleep(0.5)  # from the print to the wait
            manager.interrupt_kernel()
            while True:
                reply = client.get_shell_msg(timeout=300)
                if reply["parent_header"].get("msg_id") == number:
                    break
            assert reply["content"]["status"] == "ok", reply["content"]
            said = []
            client.execute_interactive(
                "print(run.state, 100_000 > run.step_count == len(training.calls) > 0)", timeout=300,
                output_hook=lambda m, said=said: said.append(m["content"].get("text", "")),
            )
            assert "stopped True" in "".join(said)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def write(path: Path, *cells: str) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell, id=f"cell-{i}") for i, cell in enumerate(cells)])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, path)


def printed(outputs) -> str:
    """What a cell printed: the kernel sends it in as many pieces as time makes of it."""
    return "".join(output.text for output in outputs if output.output_type == "stream")


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_the_same_cells_run_in_papermill_and_the_executed_notebook_reads_well_without_a_kernel(tmp_path):
    source, executed = tmp_path / "in.ipynb", tmp_path / "out.ipynb"
    write(source, set_up(), "run", "run.start().wait()", "print(repr(run.history))\nprint(run.history.steps == list(range(1, 41)))")
    options = {"kernel_name": "python3", "progress_bar": False, "cwd": str(tmp_path), "extra_arguments": ["--log-level=ERROR"]}
    papermill.execute_notebook(source, executed, **options)
    notebook = nbformat.read(executed, as_version=4)
    first, waited, last = (cell.outputs for cell in notebook.cells[1:])
    assert first[0].data["text/plain"] == "LiveRun(idle, step 0 of 40)"
    lines = printed(waited).splitlines()
    assert [line.split(" · ")[0] for line in lines] == ["step 10 of 40", "step 20 of 40", "step 30 of 40", "step 40 of 40"]
    assert all(re.search(r"loss [0-9.e-]+ · accuracy [0-9.]+ %$", line) for line in lines)
    (shown,) = [output.data for output in waited if output.output_type == "execute_result"]
    assert shown["text/plain"].startswith("LiveRun(finished, step 40 of 40, cool-down, loss ")
    check_inert(shown["text/html"])
    check_svg(shown["image/svg+xml"])
    assert "History(40 records, last at step 40)\nTrue" in printed(last)
    notebook.metadata.pop("widgets", None)  # what publishing strips: the page then falls back to the static form
    page, _ = nbconvert.HTMLExporter().from_notebook_node(notebook)
    assert page.count("<svg") >= 2 and "cool-down" in page


def test_the_static_forms_say_what_was_measured_and_stay_inert():
    training = Training(12, every=4)
    run = training.run(evaluate=lambda: {"<b>accuracy</b>": 0.5})
    for _ in range(2):
        bundle = run._repr_mimebundle_()
        check_one_line(bundle["text/plain"])
        check_inert(bundle["text/html"])
        check_svg(bundle["image/svg+xml"])
        if run.state == "idle":
            run.start().wait()
    assert "finished" in bundle["text/html"] and "&lt;b&gt;accuracy" in bundle["text/html"]
    assert "step 12 of 12" in bundle["text/plain"]
    assert "application/vnd.jupyter.widget-view+json" in bundle


def test_the_static_form_needs_no_widget_packages(monkeypatch):
    training = Training(8)
    monkeypatch.setitem(sys.modules, "anywidget", None)
    for name in ("live_view", "page_script"):
        monkeypatch.delitem(sys.modules, f"geta_nb.widgets.{name}", raising=False)
    run = training.run()
    assert set(run._repr_mimebundle_()) == {"text/plain", "text/html", "image/svg+xml"}
    with pytest.raises(gt.GetaError, match="optional package is missing"):
        _ = run.view
    assert run.start().wait().state == "finished"


def test_lines_are_few_and_name_round_steps(capsys):
    training = Training(8)
    run = gt.LiveRun(lambda i: {"loss": 1.0}, training.geta, training.optimizer, total_steps=2000, every=1)
    run.start().wait()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" · ")[0] for line in lines] == [f"step {n:,} of 2,000" for n in range(100, 2001, 100)]


def test_a_history_column_is_as_long_as_the_history_and_thinning_keeps_what_was_measured():
    history = History(limit=8)
    for step in range(1, 101):
        metrics = {"accuracy": step / 100} if step % 25 == 0 else {}
        history.append({"step": step, "stage": "joint", "bits": {"a": step}, "kept": {"f": 0.5}}, loss=1.0, metrics=metrics)
    assert len(history) <= 8 and history.steps[0] == 1 and history.steps[-1] == 100
    assert [v for v in history.metrics["accuracy"] if v is not None] == [0.25, 0.5, 0.75, 1.0]
    assert history.bits["a"] == [float(step) for step in history.steps]
    assert history[0]["step"] == 1 and [record["step"] for record in history[-2:]] == history.steps[-2:]
