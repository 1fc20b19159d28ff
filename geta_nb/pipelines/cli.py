"""The command line: ``geta-nb list | run | sweep | app``. Thin over papermill; every pipeline is a notebook that it runs from outside.

Exit codes: 0 done; 1 a cell failed, which is named; 2 a wrong command or parameter; 130 interrupted (the run goes on when it is
started again).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from geta_nb._extra import carried, load
from geta_nb.errors import ConfigError, GetaError, RunStateError
from geta_nb.pipelines.catalogue import Scalar, all_pipelines, find_pipeline

FAILED, WRONG, INTERRUPTED = 1, 2, 130
_EXAMPLES = """examples:
  geta-nb list                              what there is
  geta-nb list 02                           what it can be told
  geta-nb run 02 --smoke -o /tmp/try        a run of seconds, on stand-in data
  geta-nb run resnet20 -p group_sparsity 0.5 -p data_dir ~/cifar-10-batches-bin -o runs/half
  geta-nb sweep 01 -p relative_bops 0.016,0.032,0.083 -p seed 0,1,2 -o runs/sweep -j 2
  geta-nb app                               the studio, as a page on this machine

exit codes: 0 done, 1 a cell failed, 2 a wrong command or parameter, 130 interrupted; a run that was interrupted or killed goes on
where it was when the same command is given again.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.command(options)
        return code
    except GetaError as error:
        sys.stderr.write(f"geta-nb: {error}\n")
        return FAILED if isinstance(error, RunStateError) else WRONG
    except KeyboardInterrupt:
        sys.stderr.write("\ngeta-nb: interrupted; the same command goes on from the last checkpoint\n")
        return INTERRUPTED
    except BrokenPipeError:  # `geta-nb list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "geta-nb", description="Structured pruning and quantization-aware training together: the pipelines, without a notebook.",
        epilog=_EXAMPLES, formatter_class=raw,
    )  # fmt: skip
    commands = parser.add_subparsers(title="commands", required=True, metavar="{list,run,sweep,app}")
    show = commands.add_parser("list", help="name the pipelines, or the parameters of one")
    show.add_argument("name", nargs="?", help="a pipeline: name, number or part of the name")
    show.set_defaults(command=list_command)
    run = commands.add_parser("run", help="run a pipeline", epilog=_EXAMPLES, formatter_class=raw)
    run.set_defaults(command=run_command)
    sweep = commands.add_parser("sweep", help="run a pipeline for every combination of values", epilog=_EXAMPLES, formatter_class=raw)
    sweep.add_argument("-j", "--jobs", type=int, default=1, metavar="N", help="runs side by side (1)")
    sweep.set_defaults(command=sweep_command)
    for command, values in ((run, "VALUE"), (sweep, "VALUE,VALUE,...")):
        command.add_argument("name", help="a pipeline: name, number or part of the name (geta-nb list)")
        command.add_argument(
            "-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", values), help="may be given several times"
        )
        command.add_argument("-o", "--output", type=Path, metavar="DIR", help="results (runs/NAME)")
        command.add_argument("--smoke", action="store_true", help="a run of seconds: does everything work? sets sizes and epochs itself")
    run.add_argument("-q", "--quiet", action="store_true", help="no progress bar")
    app = commands.add_parser("app", help="serve the studio as a page on this machine, with Voilà")
    app.add_argument("--port", type=int, default=8866)
    app.add_argument("--no-browser", action="store_true", help="do not open a browser")
    app.set_defaults(command=app_command)
    return parser


def list_command(options: argparse.Namespace) -> int:
    """Print the pipelines, or one's parameters with defaults and remarks."""
    if options.name is None:
        pipelines = all_pipelines()
        room = max(len(pipeline.name) for pipeline in pipelines)
        sys.stdout.write("".join(f"{pipeline.name:<{room}}  {pipeline.title}\n" for pipeline in pipelines))
        return 0
    pipeline = find_pipeline(options.name)
    lines = [(parameter.name, repr(parameter.default), parameter.remark) for parameter in pipeline.parameters]
    widths = [max(len(line[i]) for line in lines) for i in range(2)]
    shown = "".join(f"  {name:<{widths[0]}}  {default:<{widths[1]}}  {remark}".rstrip() + "\n" for name, default, remark in lines)
    sys.stdout.write(f"{pipeline.name}: {pipeline.title}\n{shown}")
    return 0


def run_command(options: argparse.Namespace) -> int:
    """Run one pipeline and print what came out, in a few lines."""
    pipeline = find_pipeline(options.name)
    values = pipeline.values(options.parameter, smoke=options.smoke)
    output = options.output or Path("runs") / pipeline.name
    runner, papermill = load("geta_nb.bench.run_notebook", "notebook"), load("papermill", "notebook")
    try:
        report = runner.run_notebook(pipeline.path, output, values, progress=not options.quiet)
    except papermill.PapermillExecutionError as error:
        if error.ename == "KeyboardInterrupt":
            raise KeyboardInterrupt from None
        where = f"the notebook up to there: {output / pipeline.path.name}\n"
        sys.stderr.write("\n" + runner.describe_failure(error, pipeline.path) + where)
        return FAILED
    sys.stdout.write("\n" + runner.describe(report, output, pipeline.path))
    return 0


def sweep_command(options: argparse.Namespace) -> int:
    """Run one pipeline for every combination of the values given, and print one line a run."""
    pipeline = find_pipeline(options.name)
    if options.jobs < 1:
        raise ConfigError("sweep: how many runs side by side?", expected="--jobs of at least 1", got=options.jobs, hint="-j 2")
    grid: dict[str, list[Scalar]] = {}
    for name, texts in options.parameter:
        grid[name] = [pipeline.values([(name, text.strip())])[name] for text in texts.split(",")]
    if not grid:
        raise ConfigError("sweep: nothing to vary.", expected="at least one parameter with values", hint="-p seed 0,1,2")
    output = options.output or Path("runs") / f"{pipeline.name}_sweep"
    sweep = load("geta_nb.pipelines.sweep", "bench").sweep
    reports = sweep(pipeline.name, grid, output_dir=output, n_jobs=options.jobs, smoke=options.smoke)
    sys.stdout.write("".join(_sweep_line(report, list(grid)) for report in reports) + f"look at {output}\n")
    return 0


def _sweep_line(report: dict[str, Any], names: Sequence[str]) -> str:
    given = report.get("parameters") or report.get("settings") or {}
    parts = [f"{name}={given[name]}" for name in names if name in given]
    parts += [f"relative BOPs {100 * report['relative_bops']:.2f} %"] if "relative_bops" in report else []
    metrics = report.get("metrics", {})
    parts += [f"{name[6:]} {metrics[name[6:]]:.4g}" for name in metrics if name.startswith("dense_") and name[6:] in metrics]
    return "  ".join(parts) + "\n"


def app_command(options: argparse.Namespace) -> int:
    """Serve the studio until it is interrupted."""
    load("voila", "notebook")
    app = carried("widgets/app")
    command = [sys.executable, "-m", "voila", str(app / "studio.ipynb"), "--template=studio"]
    command += ["--Voila.ip=127.0.0.1", f"--port={options.port}"]
    paths = os.pathsep.join(part for part in (str(app), os.environ.get("JUPYTER_PATH", "")) if part)
    command += ["--no-browser"] if options.no_browser else []
    return subprocess.run(command, env={**os.environ, "JUPYTER_PATH": paths}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
