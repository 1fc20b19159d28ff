"""Run a tutorial again under nbval, and what that takes: ``make bench-tutorials`` prints the seconds of one core beside the two minutes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TUTORIALS = sorted((ROOT / "tutorials").glob("*.ipynb"))
WANTED = 120.0


def run_again(path: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a tutorial in ``folder``, cell by cell, and compare every output with the kept one."""
    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}  # figures belong into the cells
    # tools print more where CI is set, pytest among them: the same text here as there
    environment |= {"PYTHONPATH": str(ROOT), "CI": "true"}
    command = [sys.executable, "-m", "pytest", "-c", os.devnull, "--rootdir", str(ROOT), "-q", "-p", "no:cacheprovider", "--nbval"]
    command += ["--nbval-current-env", "--nbval-cell-timeout", "300", "--nbval-kernel-startup-timeout", "300"]
    command += ["--nbval-sanitize-with", str(ROOT / "tutorials" / "sanitize.cfg"), str(path)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=590, check=False)


def main() -> int:
    """Print a line for each tutorial."""
    for path in TUTORIALS:
        before = os.times()
        with tempfile.TemporaryDirectory() as folder:
            done = run_again(path, Path(folder))
        after = os.times()
        seconds = after.children_user + after.children_system - before.children_user - before.children_system
        said = "" if done.returncode == 0 else ", and its outputs differ"
        sys.stdout.write(f"{path.stem}: {seconds:.0f} s of {WANTED:.0f} ({seconds / WANTED:.2f} of it){said}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
