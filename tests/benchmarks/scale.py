"""What a thousand and ten thousand recorded runs cost: `make bench-scale`, or `... SCALE="100 1000"`.

Logistic regressions of one epoch on the embedded digits, each number in a project of its own; then the
commands that a user lives with. Each is measured as a process: wall seconds, and the most memory that
it or one of its descendants took. A cost that grows faster than the runs is marked.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import requests
from rich.console import Console
from rich.table import Table

from tests.benchmarks.processes import DIGITLAB, check_finished, home

NUMBERS = (100, 1000, 10_000)
STUDY = "scale"
LINE = ("model=logistic_regression", "epochs=1", f"study={STUDY}", "record.plots=never", "workers=2")
TOLERATED = 1.5  # times the cost of a run among fewer


class Measured(dict[str, tuple[float, float]]):
    """Of each command: wall seconds, and megabytes."""


def main() -> None:
    numbers = [int(word) for word in sys.argv[1:]] or list(NUMBERS)
    columns: dict[int, Measured] = {}
    for number in numbers:
        columns[number] = of(number)
        show(columns)


def of(number: int) -> Measured:
    """A sweep of that many trials, and what follows."""
    found = Measured()
    with home() as environment:
        sweep = ["sweep", *LINE, f"seed=range(0,{number})"]

        def run(name: str, *arguments: str) -> None:
            found[name] = measured([*DIGITLAB, *arguments], environment)
            print(f"{number:6} {name:24} {found[name][0]:8.1f} s", flush=True)

        run("the sweep", *sweep)
        check_finished(environment, number)
        run("the sweep, repeated", *sweep)
        run("runs", "runs")
        run("runs --where", "runs", "--where", "test/accuracy > 0.9", "--sort", "test/accuracy")
        run("compare", "compare", STUDY)
        run("report", "report", STUDY, "--output", str(Path(environment["DIGITLAB_HOME"]) / "r.html"))
        run("sweeps", "sweeps")
        run("du", "du")
        run("doctor", "doctor")
        found["the UI's first page"] = first_page(environment)
        mlruns = Path(environment["DIGITLAB_HOME"]) / "mlruns"
        size = sum(file.stat().st_size for file in mlruns.rglob("*") if file.is_file())
        found["on the disk, MB"] = (size / 1e6, 0.0)
    return found


def measured(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """In a child of its own, whose descendants are the only ones that the kernel counts for it."""
    script = (
        "import resource, subprocess, sys, time\n"
        "started = time.perf_counter()\n"
        "code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode\n"
        "wall = time.perf_counter() - started\n"
        "print(code, wall, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *command],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    code, wall, memory = done.stdout.split()
    if code != "0":
        sys.exit(f"{' '.join(command)} ended with code {code}:\n{done.stderr[-2000:]}")
    return float(wall), float(memory)


def first_page(environment: dict[str, str]) -> tuple[float, float]:
    """What MLflow's page of a study asks its server for: the newest 100 runs."""
    port = "5917"
    command = [*DIGITLAB, "ui", "--port", port, "--study", STUDY]
    server = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address = f"http://127.0.0.1:{port}/ajax-api/2.0/mlflow"
    try:
        _until(lambda: requests.get(f"{address.split('/ajax')[0]}/health", timeout=5).ok)
        named = requests.get(
            f"{address}/experiments/get-by-name", params={"experiment_name": STUDY}, timeout=60
        )
        ids = [named.json()["experiment"]["experiment_id"]]
        started = time.perf_counter()
        asked = {"experiment_ids": ids, "max_results": 100, "order_by": ["attributes.start_time DESC"]}
        page = requests.post(f"{address}/runs/search", json=asked, timeout=120)
        page.raise_for_status()
        assert page.json()["runs"], "the study has runs"
        return time.perf_counter() - started, 0.0
    finally:
        server.terminate()
        server.wait()


def _until(is_so: Callable[[], bool]) -> None:
    for _ in range(120):
        try:
            if is_so():
                return
        except requests.RequestException:
            pass
        time.sleep(0.5)
    sys.exit("the UI's server does not answer")


def show(columns: dict[int, Measured]) -> None:
    """`12.3 s, 410 MB` of each command at each number; `!` where it grew faster than the runs."""
    numbers = [*columns]
    table = Table("", *(f"{number:,} runs" for number in numbers), title=_machine())
    for name in columns[numbers[0]]:
        cells = []
        for k, number in enumerate(numbers):
            value, memory = columns[number][name]
            mark = " !" if k and _is_worse(columns, numbers[: k + 1], name) else ""
            unit = "" if name.endswith("MB") else " s"
            cells.append(f"{value:.1f}{unit}{f', {memory:.0f} MB' if memory else ''}{mark}")
        table.add_row(name, *cells)
    Console(width=120).print(table)


def _is_worse(columns: dict[int, Measured], numbers: list[int], name: str) -> bool:
    """Whether a further run costs more than one of the fewer before did, start included."""
    *_, before, last = numbers
    earlier = columns[before][name][0] / before
    further = (columns[last][name][0] - columns[before][name][0]) / (last - before)
    return further > TOLERATED * earlier


def _machine() -> str:
    from digitlab.training.arithmetic import machine

    about = machine()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{about['cpu']}, {about['cores']} cores, {memory:.0f} GiB"


if __name__ == "__main__":
    main()
