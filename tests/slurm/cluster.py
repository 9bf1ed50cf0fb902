"""A real SLURM with two nodes on one machine: munge, MariaDB, slurmdbd, slurmctld and two slurmd.

Needs root and Debian's packages, but neither systemd nor cgroups. All of it lies in one folder with a
short path, for the sockets, and is found by the environment: SLURM_CONF. What a killed run of tests has
left is ended by the next start.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from tests.support.servers import free_port

PACKAGES = "slurm-wlm munge slurmdbd mariadb-server"
PROGRAMS = ("munged", "mariadb-install-db", "mariadbd", "slurmdbd", "slurmctld", "slurmd", "sacct")
PREFIX = "digitlab-slurm-"
NAME = "lab"
NODES = ("n1", "n2")

# cred_expire: how long a job that was requeued waits; 120 s by default. main is preempted by urgent.
SLURM = """\
ClusterName={name}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire={requeue_seconds}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout=5
KillWait=5
OverTimeLimit=0
MinJobAge=600
MaxArraySize=1001
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=sched_interval=2,batch_sched_delay=1,bf_interval=2
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePass={folder}/munge.socket
AccountingStoragePort={accounting_port}
MessageTimeout=30
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={n1_port} CPUs=1 RealMemory=4000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={n2_port} CPUs=1 RealMemory=4000
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=urgent Nodes=n1,n2 MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""
ACCOUNTING = """\
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost=localhost
DbdPort={accounting_port}
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct_db
PidFile={folder}/slurmdbd.pid
"""


def missing() -> str | None:
    """Why no cluster can be started here, if none can."""
    if os.geteuid() != 0:
        return "a SLURM of the tests' own needs root"
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        install = f"apt-get install -y --no-install-recommends {PACKAGES}"
        return f"a SLURM of the tests' own needs {', '.join(absent)}: {install}"
    return None


class Cluster:
    """A cluster that runs.

    environment: what its commands need, and whoever calls them.
    """

    def __init__(self, folder: Path, *, requeue_seconds: int) -> None:
        self.folder = folder
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf")}
        self._ports = {
            name: free_port() for name in ("controller_port", "accounting_port", "n1_port", "n2_port")
        }
        values = {
            "name": NAME,
            "host": socket.gethostname().partition(".")[0],
            "folder": folder,
            "requeue_seconds": requeue_seconds,
            **self._ports,
        }
        (folder / "slurm.conf").write_text(SLURM.format(**values))
        accounting = folder / "slurmdbd.conf"
        accounting.touch(mode=0o600)
        accounting.write_text(ACCOUNTING.format(**values))
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Until both nodes wait for jobs."""
        self._start_munge()
        self._start_database()
        self._start("slurmdbd", "slurmdbd", "-D", MYSQL_UNIX_PORT=str(self._database_socket))
        self._await_port("slurmdbd", "accounting_port")
        self.run("sacctmgr", "-i", "add", "cluster", NAME)
        (self.folder / "state").mkdir()
        self._start("slurmctld", "slurmctld", "-D")
        for node in NODES:
            self.start_node(node)
        for node in NODES:
            self.await_state(node, "idle")

    def start_node(self, node: str) -> None:
        """SLURMD_NODENAME: its jobs have that anyway, and now what supervises them, too."""
        self._start(node, "slurmd", "-D", "-N", node, SLURMD_NODENAME=node)

    def kill_node(self, node: str) -> None:
        """kill -9 of its daemon and all of its jobs, as if its power had failed."""
        processes = _with_variables(SLURMD_NODENAME=node, **_marks(self.folder))
        for number in (signal.SIGSTOP, signal.SIGKILL):  # none of them sees another die
            _send(processes, number)
        self._daemons.pop(node).wait()

    def await_state(self, node: str, state: str, seconds: float = 120) -> None:
        def is_reached() -> bool:
            return self.run("sinfo", "-h", "-N", "-n", node, "-p", "main", "-o", "%T").strip() == state

        self.wait_for(is_reached, f"{node} is {state}", seconds)

    def jobs(self) -> dict[str, str]:
        """The state of every job, and of each of an array, that waits or runs."""
        lines = self.run("squeue", "-h", "-r", "-o", "%i %T").splitlines()
        return dict(line.split() for line in lines)  # type: ignore[misc]

    def processes_on(self, node: str) -> list[psutil.Process]:
        """What SLURM has started for the jobs there, without children of it."""
        found = []
        for pid in _with_variables(SLURMD_NODENAME=node, SLURM_LOCALID="0", **_marks(self.folder)):
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(pid)
                if (parent := process.parent()) and parent.name().startswith("slurmstepd"):
                    found.append(process)
        return found

    def clear(self) -> None:
        """End every job, and bring back nodes that are gone."""
        self.run("scancel", "--user=root")
        for node in NODES:
            if node not in self._daemons:
                self.start_node(node)
        self.wait_for(lambda: not self.jobs(), "no job is left")
        for node in NODES:
            self.await_state(node, "idle")

    def run(self, *command: str, **options: Any) -> str:
        """What a command such as squeue prints, or an error of it."""
        done = subprocess.run(
            command, env=os.environ | self.environment, capture_output=True, text=True, **options
        )
        return done.stdout if done.returncode == 0 else done.stdout + done.stderr

    def wait_for(self, condition: Callable[[], object], what: str, seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            for name, daemon in self._daemons.items():
                assert daemon.poll() is None, f"{name} has died"
            assert time.monotonic() < deadline, f"not after {seconds:.0f} s: {what}"
            time.sleep(0.05)

    def logs(self, num_lines: int = 30) -> str:
        """The end of every daemon's log."""
        parts = []
        for file in sorted((self.folder / "log").iterdir()):
            lines = file.read_text(errors="replace").splitlines()[-num_lines:]
            parts += [f"--- {file.name}", *lines]
        return "\n".join(parts)

    def stop(self) -> None:
        """End every daemon and every job."""
        _end_all(self.folder)
        for daemon in self._daemons.values():
            daemon.wait()

    def _start_munge(self) -> None:
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
        places = [
            f"--{name}-file={self.folder / f'munge.{name}'}" for name in ("key", "log", "pid", "seed")
        ]
        self._munge_socket = self.folder / "munge.socket"
        self._start("munged", "munged", "--foreground", f"--socket={self._munge_socket}", *places)
        self.wait_for(self._munge_socket.exists, "munged listens")

    def _start_database(self) -> None:
        data, self._database_socket = self.folder / "database", self.folder / "database.socket"
        install = ["mariadb-install-db", "--no-defaults", f"--datadir={data}", "--user=root"]
        install += ["--auth-root-authentication-method=normal", "--skip-test-db"]
        with (self.folder / "log" / "install").open("wb") as log:
            subprocess.run(install, check=True, stdout=log, stderr=log)
        self._start(
            "mariadbd",
            *("mariadbd", "--no-defaults", f"--datadir={data}", "--user=root", "--skip-networking"),
            *(f"--socket={self._database_socket}", f"--pid-file={self.folder / 'mariadbd.pid'}"),
        )
        self.wait_for(self._database_socket.exists, "mariadbd listens")

    def _start(self, name: str, *command: str, **environment: str) -> None:
        with (self.folder / "log" / name).open("ab") as log:
            self._daemons[name] = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                env=os.environ | _marks(self.folder) | environment,
                cwd=self.folder,
                start_new_session=True,
            )

    def _await_port(self, name: str, port: str) -> None:
        def answers() -> bool:
            with socket.socket() as client:
                return client.connect_ex(("127.0.0.1", self._ports[port])) == 0

        self.wait_for(answers, f"{name} listens")


@contextlib.contextmanager
def cluster(*, requeue_seconds: int = 10) -> Iterator[Cluster]:
    """A cluster of our own; requeue_seconds: how long a job waits that was requeued."""
    _end_what_was_left()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir="/tmp"))
    folder.chmod(0o755)  # munge demands that everybody can reach its socket
    (folder / "log").mkdir()
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = Cluster(folder, requeue_seconds=requeue_seconds)
        try:
            try:
                made.start()
            except Exception as error:
                error.add_note(made.logs())
                raise
            yield made
        finally:
            made.stop()
            shutil.rmtree(folder)


def _end_what_was_left() -> None:
    """Clusters whose tests were killed: nobody holds their lock."""
    for folder in Path("/tmp").glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError), (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _end_all(folder)
            shutil.rmtree(folder)


def _marks(folder: Path) -> dict[str, str]:
    """What daemons and jobs of a cluster have in their environment, and nobody else."""
    return {"SLURM_CONF": str(folder / "slurm.conf"), "SLURM_CLUSTER_NAME": NAME}


def _end_all(folder: Path) -> None:
    """Daemons and jobs, some of which may start others meanwhile."""
    while processes := _with_variables(**_marks(folder)):
        _send(processes, signal.SIGKILL)
        time.sleep(0.02)


def _with_variables(**variables: str) -> list[int]:
    """Other processes with these in their environment.

    Not by psutil, which stops at a gap: what supervises a job has one at the start.
    """
    lines = {f"{name}={value}".encode() for name, value in variables.items()}
    found = []
    for file in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if lines <= set(file.read_bytes().split(b"\0")):
                found.append(int(file.parent.name))
    return [pid for pid in found if pid != os.getpid()]


def _send(processes: list[int], number: int) -> None:
    for pid in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
