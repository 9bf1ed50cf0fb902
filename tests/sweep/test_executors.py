"""What every executor of the table does, and what worker processes do besides; all of it for real."""

import dataclasses
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from digitlab.config.composition import composer
from digitlab.errors import Interrupted
from digitlab.runs.interrupts import Interrupts
from digitlab.sweep.settings import EXECUTORS as NAMES
from digitlab.sweep.settings import ProcessesSettings, Settings, to_settings
from digitlab.sweep.workers.cores import usable_cores
from digitlab.sweep.workers.executors.executor import Executor, Needs, TaskFailed, Tell, WorkerDied
from digitlab.sweep.workers.executors.jobs import Jobs
from digitlab.sweep.workers.executors.processes import Processes
from digitlab.sweep.workers.executors.table import EXECUTORS
from digitlab.sweep.workers.executors.worker import _work
from tests.slurm import cluster as slurm
from tests.support.cli import CHECKOUT, in_ci


def square(x: int, *, tell: Any, interrupts: Interrupts) -> int:
    return x * x


@dataclasses.dataclass(frozen=True)
class Epoch:
    """What a trial says: with its number, by which a late answer finds it."""

    number: int


def speak_until_answered(number: int, *, tell: Any, interrupts: Interrupts) -> Any:
    for _ in range(600):
        if reply := tell(Epoch(number)):
            return reply
        time.sleep(0.05)
    return "never answered"


def say_and_hear(x: int, *, tell: Any, interrupts: Interrupts) -> Any:
    return [tell((x, i)) for i in range(3)]


def whoami(*, tell: Any, interrupts: Interrupts) -> tuple[int, str | None]:
    time.sleep(0.2)
    return os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES")


def fail(*, tell: Any, interrupts: Interrupts) -> None:
    raise ValueError("no such luck")


def die(*, tell: Any, interrupts: Interrupts) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave(*, tell: Any, interrupts: Interrupts) -> None:
    os._exit(7)


def tell_and_write_down_what_fails(file: Path, *, tell: Any, interrupts: Interrupts) -> None:
    """As a trial does, whose record then says FAILED."""
    try:
        tell("an epoch")
    except Exception as error:
        file.write_text(repr(error))


def work_until_interrupted(*, tell: Any, interrupts: Interrupts) -> str:
    tell("started")
    for _ in range(3000):
        time.sleep(0.01)
        try:
            interrupts.check()
        except Interrupted:
            return "stopped at a step"
    return "never asked to stop"


def answer(said: Any) -> Any:
    return f"heard {said.number}" if isinstance(said, Epoch) else None


def settings(*overrides: str) -> Settings:
    """As conf/ and these overrides say."""
    with composer() as conf:
        return to_settings(conf.compose_sweep(list(overrides)))


@contextmanager
def started(executor: Executor, tell: Tell = answer) -> Iterator[Executor]:
    executor.start(tell, Interrupts())
    try:
        yield executor
    finally:
        executor.shutdown()


@contextmanager
def processes(num_workers: int, tell: Tell = answer, device: str = "cpu") -> Iterator[Processes]:
    chosen = ProcessesSettings(name="processes", workers=num_workers, per_gpu=2)
    pool = Processes(chosen, Needs(device=device, threads=1))
    with started(pool, tell):
        yield pool


@pytest.fixture(scope="module")
def slurm_cluster() -> Iterator[None]:
    """Its commands speak to it."""
    if reason := slurm.missing():
        pytest.skip(reason)
    with slurm.cluster() as cluster, pytest.MonkeyPatch.context() as patch:
        for name, value in cluster.environment.items():
            patch.setenv(name, value)
        yield


def made(request: pytest.FixtureRequest, home: Path) -> Executor:
    """One of the table, with two workers, for a sweep of this home."""
    name = request.param
    if name == "slurm":
        request.getfixturevalue("slurm_cluster")
    workers = [] if name == "inprocess" else ["workers=2"]
    executor = EXECUTORS[name](
        settings(f"executor={name}", *workers).executor, Needs(device="cpu", threads=1)
    )
    if isinstance(executor, Jobs):
        executor._cluster.ask_every_seconds = 1.0
    folder = home / "mlruns" / "sweeps" / "0a1b2c3d"
    folder.mkdir(parents=True)
    assert not executor.attach(folder)
    executor.prepare()
    return executor


ALL = [pytest.param(name, marks=in_ci if name == "slurm" else ()) for name in EXECUTORS]


@pytest.fixture(params=ALL)
def executor(request: pytest.FixtureRequest, home: Path) -> Iterator[Executor]:
    with started(made(request, home)) as executor:
        yield executor


@pytest.fixture(params=[each for each in ALL if each.values != ("inprocess",)])
def elsewhere(
    request: pytest.FixtureRequest, home: Path
) -> Iterator[tuple[Executor, queue.Queue[Any]]]:
    """One whose tasks run in other processes, and what they say."""
    heard: queue.Queue[Any] = queue.Queue()
    with started(made(request, home), heard.put) as executor:
        yield executor, heard


def test_every_executor_of_the_settings_is_in_the_table_and_has_its_values_in_conf() -> None:
    assert {file.stem for file in (CHECKOUT / "conf" / "executor").glob("*.yaml")} == set(EXECUTORS)
    assert set(NAMES) == set(EXECUTORS)


def test_an_executor_begins_nothing_when_it_is_made() -> None:
    threads, children = set(threading.enumerate()), set(multiprocessing.active_children())
    for name, make in EXECUTORS.items():
        executor = make(settings(f"executor={name}").executor, Needs(device="cpu", threads=1))
        assert executor.num_workers >= 1
        most = 10_000  # threads of a trial: more than there are cores
        assert make(
            settings(f"executor={name}").executor, Needs(device="cpu", threads=most)
        ).num_workers
    assert set(threading.enumerate()) <= threads
    assert set(multiprocessing.active_children()) <= children


def test_results_come_back_in_the_futures_that_were_given(executor: Executor) -> None:
    futures = [executor.submit(square, x) for x in range(20)]
    assert [future.result(timeout=60) for future in futures] == [x * x for x in range(20)]


def test_a_task_is_answered_when_it_speaks(executor: Executor) -> None:
    assert executor.submit(speak_until_answered, 4).result(timeout=60) == "heard 4"


def test_what_a_task_says_is_heard_while_it_runs(
    elsewhere: tuple[Executor, queue.Queue[Any]],
) -> None:
    executor, heard = elsewhere
    future = executor.submit(work_until_interrupted)
    assert heard.get(timeout=60) == "started"
    assert future.running()
    executor.interrupt(signal.SIGINT)
    assert future.result(timeout=60) == "stopped at a step"


def test_an_error_is_its_own_tasks_alone(executor: Executor) -> None:
    bad, good = executor.submit(fail), executor.submit(square, 3)
    with pytest.raises((TaskFailed, ValueError), match="no such luck"):
        bad.result(timeout=60)
    assert good.result(timeout=60) == 9


@pytest.mark.parametrize(
    ("task", "told"), [(die, "SIGKILL .out of memory|FAILED"), (leave, "ended with code 7|FAILED")]
)
def test_a_worker_that_dies_costs_its_own_task_alone(
    task: Any, told: str, elsewhere: tuple[Executor, queue.Queue[Any]]
) -> None:
    executor, _ = elsewhere
    before = [executor.submit(square, x) for x in range(4)]
    bad = executor.submit(task)
    after = [executor.submit(square, x) for x in range(4)]
    with pytest.raises(WorkerDied, match=told):
        bad.result(timeout=120)
    assert [f.result(timeout=60) for f in before + after] == [0, 1, 4, 9] * 2


def test_a_worker_that_dies_idle_costs_nothing() -> None:
    with processes(1) as pool:
        pid, _ = pool.submit(whoami).result(timeout=60)
        os.kill(pid, signal.SIGKILL)
        assert pool.submit(square, 5).result(timeout=60) == 25


def test_a_controller_that_is_gone_is_no_failure_of_a_task(tmp_path: Path) -> None:
    """Here the worker finds out by speaking to it, before it is told over `stop`."""
    file, context = tmp_path / "failed", multiprocessing.get_context("spawn")
    controller, theirs = context.Pipe()
    told_to_stop, stop = context.Pipe(duplex=False)
    worker = context.Process(target=_work, args=(theirs, told_to_stop, dict(os.environ)))
    worker.start()
    theirs.close()
    controller.send((tell_and_write_down_what_fails, (file,)))
    assert [controller.recv(), controller.recv()] == [("begun", None), ("tell", "an epoch")]
    controller.close()
    worker.join(30)
    stop.close()
    assert worker.exitcode == 1
    assert not file.exists()


def test_workers_take_many_tasks_and_no_more_of_them_than_asked() -> None:
    with processes(2) as pool:
        found = [pool.submit(whoami).result(timeout=60)[0] for _ in range(3)]
        found += [f.result(timeout=60)[0] for f in [pool.submit(whoami) for _ in range(4)]]
    assert len(set(found)) <= 2
    assert os.getpid() not in found


def test_queued_tasks_can_be_cancelled() -> None:
    begun = threading.Event()
    with processes(1, lambda said: begun.set()) as pool:
        first = pool.submit(say_and_hear, 1)
        assert begun.wait(60)
        rest = [pool.submit(square, x) for x in range(5)]
        assert rest[-1].cancel()
        pool.shutdown()
    assert first.result(timeout=60)
    assert all(future.cancelled() or future.result() is not None for future in rest)
    with pytest.raises(RuntimeError):
        pool.submit(square, 1)


def test_what_is_given_to_a_new_worker_while_all_stop_stops_too() -> None:
    """One that was started too late to be among those that were asked."""
    with processes(1) as pool:
        pool.interrupt(signal.SIGINT)
        pool._start_worker(0)
        assert pool._workers[0].process.is_alive()
        pool._workers[0].connection.send((work_until_interrupted, ()))
        said = [pool._workers[0].connection.recv() for _ in range(2)]
        assert said == [("begun", None), ("tell", "started")]
        pool._workers[0].connection.send(None)
        assert pool._workers[0].connection.recv() == ("tell", signal.SIGINT)
        pool._workers[0].connection.send(None)
        assert pool._workers[0].connection.recv() == ("result", "stopped at a step")


@pytest.mark.parametrize(
    ("group", "files", "cores"),
    [
        ("0::/", {"cpu.max": "250000 100000"}, 2),
        ("0::/", {"cpu.max": "50000 100000"}, 1),
        ("0::/", {"cpu.max": "max 100000"}, 8),
        ("0::/user/job", {"user/cpu.max": "300000 100000", "user/job/cpu.max": "max 100000"}, 3),
        ("0::/host/path", {"cpu.max": "300000 100000"}, 3),  # as a container sees its own
        ("4:cpu,cpuacct:/d/1", {"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "50000"}, 4),
        ("4:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ("3:cpuset:/\n9:name=systemd:/", {"cpu.max": "max"}, 8),
        ("", {}, 8),
    ],
)
def test_a_containers_quota_is_heeded(
    group: str, files: dict[str, str], cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    for name, text in {"proc/self/cgroup": group}.items() | {
        (f"sys/fs/cgroup/{name}", text) for name, text in files.items()
    }:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert usable_cores(tmp_path) == cores
    assert 1 <= usable_cores() <= 8


def test_workers_of_one_gpu_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    per_gpu = ProcessesSettings(name="processes", workers=None, per_gpu=2)
    assert Processes(per_gpu, Needs(device="cuda", threads=1)).num_workers == 4
    with processes(2, device="cuda") as pool:
        assert [pool._environment(i)["CUDA_VISIBLE_DEVICES"] for i in range(5)] == [*"00110"]
        futures = [pool.submit(whoami) for _ in range(4)]
        assert {f.result(timeout=60)[1] for f in futures} == {"0"}


@pytest.mark.fault("F17")
def test_nothing_is_left_over_after_a_thousand_tasks() -> None:
    """Memory and file descriptors of this process do not grow with the number of tasks."""
    process = psutil.Process()
    with processes(2) as pool:
        wait([pool.submit(square, x) for x in range(200)])
        descriptors, memory = process.num_fds(), process.memory_info().rss
        wait([pool.submit(square, x) for x in range(1000)])
        assert process.num_fds() <= descriptors
        assert process.memory_info().rss - memory < 1000 * 100_000
    assert process.num_fds() < descriptors, "the pipes are closed"
