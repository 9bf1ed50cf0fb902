"""Sweeps against stock Hydra, as ratios measured side by side: `make bench-sweep`.

`python -m tests.benchmarks.sweeps overhead first real memory repeat members sweeps` chooses parts.
Every contestant is a process of its own in a project folder of its own; CPU seconds are those of all
its descendants. What takes long is measured once a round, the contestants in turns, so that a busy
moment hits all alike.
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from digitlab.runs import provenance
from digitlab.training import arithmetic
from tests.benchmarks.engines import members, whole_sweeps
from tests.benchmarks.processes import (
    BASIC,
    CHECKOUT,
    DIGITLAB,
    Cost,
    adopt_orphans,
    check_finished,
    home,
    measure,
    reap_orphans,
)

ROUNDS = 3
MANY, FEW = 200, 10  # trials without training; their difference leaves the start-up out

NOOP = [sys.executable, "-c", "from tests.benchmarks.noop_sweep import main; main()"]
STOCK = [sys.executable, "-m", "tests.benchmarks.stock_sweep", "--multirun"]
QUIET = ["hydra/job_logging=disabled", "hydra/hydra_logging=disabled", "hydra.output_subdir=null"]


def main() -> None:
    parts: dict[str, Callable[[], None]] = {
        "overhead": overhead,
        "first": first,
        "real": real,
        "memory": memory,
        "repeat": repeat,
        "members": members,
        "sweeps": whole_sweeps,
    }
    chosen = sys.argv[1:] or list(parts)
    if unknown := [name for name in chosen if name not in parts]:
        sys.exit(f"parts are {', '.join(parts)}; got {', '.join(unknown)}")
    adopt_orphans()
    say_machine()
    for name in chosen:
        parts[name]()
    print(f"\nload average at the end: {load()}")


def overhead() -> None:
    """CPU for trials that do nothing: what is left is composing, checking, launching, noting down."""
    title(f"overhead: CPU seconds for {MANY} trials that do nothing, median of {ROUNDS} rounds")
    contestants = {
        f"{name} {trials}": lambda make=make, trials=trials: make(trials)
        for name, make in {"stock": stock, "inprocess": noop, "processes": processes}.items()
        for trials in (FEW, MANY)
    }
    found = {name: median(costs, "cpu") for name, costs in in_turns(contestants).items()}
    total = {name: found[f"{name} {MANY}"] for name in ("stock", "inprocess", "processes")}
    extra = {n: 1000 * (total[n] - found[f"{n} {FEW}"]) / (MANY - FEW) for n in total}
    header()
    for name in ("inprocess", "processes"):
        told = f"ms for each further trial, {name}"
        row(told, extra["stock"], extra[name], target=(1 / 8, "<="), unit="ms")
        told = f"total / {MANY} with the start, {name}"
        row(told, 1000 * total["stock"] / MANY, 1000 * total[name] / MANY, target=None, unit="ms")


def first() -> None:
    """From the command to the first of many trials."""
    title("first: wall seconds from the command to the first of 1,000 trials")
    scales = in_turns({"10": lambda: stock_first(10), "100": lambda: stock_first(100)})
    ten, hundred = statistics.median(scales["10"]), statistics.median(scales["100"])
    theirs = ten + (hundred - ten) * (1000 - 10) / (100 - 10)
    print(f"  stock: {ten:.1f} s for 10 trials, {hundred:.1f} s for 100: scaled to 1,000, not measured")
    found = in_turns({"digitlab": digitlab_first})["digitlab"]
    header()
    for told, place in (("it is started", 0), ("its first epoch is on disk", 1)):
        ours = statistics.median(times[place] for times in found)
        row(told, theirs, ours, target=(10, "seconds"), unit="s")


def real() -> None:
    """Trainings so short that the overhead decides, recorded in SQLite.

    By default each run draws its pictures, but of a sweep's runs only the best: said apart.
    """
    title(f"real: 64 logistic regressions of 2 epochs on digits, recorded; median of {ROUNDS} rounds")
    header()
    for pictures, told in (("never", "the same recording, no pictures"), ("auto", "by default")):
        line = ["model=logistic_regression", "epochs=2", "seed=range(64)", f"record.plots={pictures}"]
        found = in_turns(
            {
                "stock": lambda line=line: recorded("train", "--multirun", *BASIC, *line),
                "digitlab": lambda line=line: recorded("sweep", *line),
            }
        )
        for what, target in (("wall", (1 / 3, "<=")), ("cpu", None)):
            theirs, ours = (median(found[who], what) for who in ("stock", "digitlab"))
            row(f"{what}, {told}", theirs, ours, target=target, unit="s")


def recorded(*command: str) -> Cost:
    with home() as environment:
        cost = measure([*DIGITLAB, *command], environment)
        check_finished(environment, 64)
        return cost


def memory() -> None:
    """What the controlling process keeps of each trial."""
    title("memory: the controlling process over 1,000 trials that do nothing, 2 workers")
    with home() as environment:
        command = [*NOOP, "seed=range(1000)", "workers=2"]
        samples = json.loads(measure(command, environment).out.splitlines()[-1])
    start, end = samples[0], samples[-1]
    growth = (end["rss"] - start["rss"]) / (end["trial"] - start["trial"]) / 1e6
    for name, sample in (("trial 100", start), ("trial 1000", end)):
        print(f"  {name:44} {sample['rss'] / 1e6:9.1f} MB   {sample['fds']} open files")
    verdict(growth < 0.1, f"{growth:.4f} MB more for each trial, target < 0.1")
    verdict(start["fds"] == end["fds"], f"{end['fds'] - start['fds']} open files more, target 0")


def repeat() -> None:
    """The command of a sweep that has ended, again."""
    title(f"repeat: a finished sweep of 100 trials, median of {ROUNDS} repetitions")
    command = [*DIGITLAB, "sweep", "epochs=1", "seed=range(100)"]
    with home() as environment:
        once = measure(command, environment)
        check_finished(environment, 100)
        print(f"  {'the first time':44} {once.wall:9.2f} s wall {once.cpu:9.2f} s CPU")
        costs = [measure(command, environment) for _ in range(ROUNDS)]
    assert all("100 finished" in cost.out for cost in costs), "it was all there"
    print(f"  {'again':44} {median(costs, 'wall'):9.2f} s wall {median(costs, 'cpu'):9.2f} s CPU")
    verdict(median(costs, "wall") <= 5, "target <= 5 s wall")


def stock(trials: int) -> Cost:
    with home() as environment:
        return measure([*STOCK, *points(trials), *of_stock(environment)], environment)


def noop(trials: int) -> Cost:
    with home() as environment:
        return measure([*NOOP, *points(trials), "executor=inprocess"], environment)


def processes(trials: int) -> Cost:
    with home() as environment:
        return measure([*NOOP, *points(trials), "executor=processes"], environment)


def stock_first(trials: int) -> float:
    """Seconds until the first job of stock Hydra starts; it checks all of them before."""
    with home() as environment:
        started = time.perf_counter()
        command = [*STOCK, *points(trials), *of_stock(environment)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, cwd=CHECKOUT) as job:
            assert job.stdout is not None
            assert job.stdout.readline() == b"started\n"
            seconds = time.perf_counter() - started
            job.kill()
        return seconds


def digitlab_first(*command: str) -> tuple[float, float]:
    """Seconds until the journal has the first trial as started, and until that has an epoch on disk."""
    command = command or ("sweep", "seed=range(1000)")
    with home() as environment:
        mlruns = Path(environment["DIGITLAB_HOME"]) / "mlruns"
        begun = time.perf_counter()
        sweep = subprocess.Popen(
            [*DIGITLAB, *command],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd=CHECKOUT,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

        def wait_until(is_there: Callable[[], bool]) -> float:
            while not is_there():
                assert sweep.poll() is None, f"it ended with code {sweep.returncode}"
                time.sleep(0.005)
            return time.perf_counter() - begun

        started = wait_until(lambda: has_event(mlruns, "started"))
        trained = wait_until(lambda: has_epoch(mlruns) or has_event(mlruns, "ended"))
        sweep.send_signal(signal.SIGINT)
        sweep.wait()
        reap_orphans()
    return started, trained


def has_event(mlruns: Path, name: str) -> bool:
    found = (file.read_text() for file in mlruns.glob("sweeps/*/journal.jsonl"))
    return any(f'"event": "{name}"' in text for text in found)


def has_epoch(mlruns: Path) -> bool:
    """Whether some trial's record has a complete line of metrics."""
    for file in mlruns.glob("records/*/metrics.jsonl"):
        try:
            if "\n" in file.read_text():
                return True
        except FileNotFoundError:
            continue  # delivered, and deleted, meanwhile
    return False


def points(trials: int) -> list[str]:
    return [f"seed=range({trials // 2})", "batch_size=32,64"]


def of_stock(environment: dict[str, str]) -> list[str]:
    return [*BASIC, *QUIET, f"hydra.sweep.dir={environment['DIGITLAB_HOME']}/multirun"]


def in_turns(contestants: dict[str, Callable[[], Any]], rounds: int = ROUNDS) -> dict[str, list[Any]]:
    samples: dict[str, list[Any]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            samples[name].append(run())
    return samples


def median(costs: list[Cost], what: str) -> float:
    return statistics.median(getattr(cost, what) for cost in costs)


def title(text: str) -> None:
    print(f"\n{text}", flush=True)


def header() -> None:
    print(f"  {'':44} {'stock':>11} {'digitlab':>11} {'stock / ours':>13}", flush=True)


def row(name: str, theirs: float, ours: float, *, target: tuple[float, str] | None, unit: str) -> None:
    """A target is a share of stock's value (`<=`) or, as `seconds`, a value by itself."""
    told = ""
    if target is not None:
        limit, kind = target
        is_met = ours <= (limit if kind == "seconds" else limit * theirs)
        wanted = f"<= {limit:g} s" if kind == "seconds" else f">= {1 / limit:g}x"
        told = f"  target {wanted}: {'met' if is_met else 'MISSED'}"
    line = f"  {name:44} {theirs:8.1f} {unit:2} {ours:8.1f} {unit:2} {theirs / ours:11.1f} x"
    print(line + told, flush=True)


def verdict(is_met: bool, text: str) -> None:
    print(f"  {text}: {'met' if is_met else 'MISSED'}", flush=True)


def say_machine() -> None:
    machine, versions = arithmetic.machine(), provenance.versions()
    print(f"{machine['cpu']}, {machine['cores']} cores, {machine['os']}; load average {load()}")
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    print(f"commit {provenance.code()['commit'][:10]}, changed since: {provenance.code()['dirty']}")


def load() -> str:
    return " ".join(f"{value:.2f}" for value in os.getloadavg())


if __name__ == "__main__":
    main()
