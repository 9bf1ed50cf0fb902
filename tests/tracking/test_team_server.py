"""A team's server, as `make server` starts it: PostgreSQL, MLflow, passwords."""

import base64
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from digitlab.config import project
from digitlab.tracking import delivery
from digitlab.tracking.connection import store_process
from digitlab.tracking.connection.location import unreachable
from digitlab.tracking.delivery import Delivery
from digitlab.tracking.run_folder import RunFolder, all_records
from digitlab.tracking.store import RunStore
from tests.support.cli import CHECKOUT, Cli, in_ci, slow
from tests.support.processes import wait_for
from tests.support.run_folders import new_record
from tests.support.servers import TeamServer, free_port

boto3 = pytest.importorskip("boto3")
pytestmark = in_ci


@contextmanager
def watched_arguments() -> Iterator[set[str]]:
    """The arguments of every process of this machine, meanwhile."""
    seen: set[str] = set()
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(0.1):
            for file in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):
                    seen.add(file.read_text(errors="replace"))

    thread = threading.Thread(target=watch)
    thread.start()
    yield seen
    is_over.set()
    thread.join()


def hits(folder: Path, secrets: list[str]) -> list[str]:
    files = [file for file in folder.rglob("*") if file.is_file()]
    return [str(f) for f in files if any(secret.encode() in f.read_bytes() for secret in secrets)]


def test_no_secret_is_left_anywhere(
    team: TeamServer, digitlab: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In no record, artifact, log, archive, list of processes, output, nor in the database."""
    user, password = (os.environ[f"MLFLOW_TRACKING_{name}"] for name in ("USERNAME", "PASSWORD"))
    login = base64.b64encode(f"{user}:{password}".encode()).decode()
    admin = (team.folder / "secrets" / "admin_password").read_text().strip()
    key = (team.folder / "secrets" / "flask_secret_key").read_text().strip()
    secrets = [password, login, admin, key]
    monkeypatch.chdir(tmp_path)
    with watched_arguments() as arguments:
        results = [digitlab("train", "epochs=1", "study=hush", "record.plots=auto")]
        (run,) = RunStore(team.uri).runs("hush")
        assert run.tags["mlflow.user"] == user
        results += [
            digitlab("sweep", "seed=0,1", "epochs=1", "study=hushed", "workers=2"),
            digitlab("reproduce", run.run_id),
            digitlab("export", run.run_id, "run.zip"),
            digitlab("report", "hushed", "--output", "report"),
            digitlab("runs"),
            digitlab("show", run.run_id),
            digitlab("ui"),
            digitlab("sync"),
        ]
        doctor = digitlab("doctor")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", f"{password}x")
        refused = [digitlab("runs"), digitlab("train", "epochs=1", "study=refused")]
    assert [result.code for result in results] == [0] * len(results), results
    assert f"OK    tracking store      {team.uri}" in doctor.out
    assert "does not let you in: set MLFLOW_TRACKING_USERNAME" in refused[0].err
    assert "does not let you in" in refused[1].err
    zipfile.ZipFile("run.zip").extractall("unpacked")
    said = "".join(result.out + result.err for result in [*results, doctor, *refused])
    for text in (said, "\0".join(arguments), team.log(), team.dump()):
        assert not [secret for secret in secrets if secret in text]
    assert user in team.dump(), "it is the whole database"
    assert any("sweep" in argument for argument in arguments), "there were processes to look at"
    assert len(list((team.folder / "artifacts").rglob("record.json"))) >= 4
    assert hits(team.folder / "artifacts", secrets) == []
    assert hits(tmp_path, secrets) == []


def push_until(record: RunFolder, delivering: Delivery, num_lines: int) -> float:
    """The longest that a push took."""
    longest = 0.0

    def is_there() -> bool:
        nonlocal longest
        started = time.monotonic()
        delivering.push()
        longest = max(longest, time.monotonic() - started)
        return record.delivered.num_metric_lines == num_lines

    wait_for(is_there, "the store has what was logged")
    return longest


def test_a_power_cut_of_the_server_loses_nothing_and_doubles_nothing(
    team: TeamServer, digitlab: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Away when a run begins, cut in the middle of one and back before its end, away at an end."""
    for module, name in ((delivery, "RETRY_AFTER_SECONDS"), (store_process, "LEFT_ALONE_SECONDS")):
        monkeypatch.setattr(module, name, 0.0)
    monkeypatch.setattr(delivery, "PUSH_EVERY_SECONDS", 0.1)
    said: list[str] = []
    team.kill()
    assert "not delivered" in digitlab("train", "epochs=2", "study=cut").err
    team.start()
    record = new_record(project.records(), study="cut", tracking_uri=team.uri)
    (record.artifacts / "config.yaml").write_text("seed: 0\n")
    delivering = Delivery(record, said.append)
    for epoch in (1, 2, 3):
        record.log_metrics({"train/loss": 1 / epoch}, step=epoch)
    push_until(record, delivering, 3)
    team.kill()
    longest = 0.0
    for epoch in range(4, 60):
        record.log_metrics({"train/loss": 1 / epoch}, step=epoch)
        started = time.monotonic()
        delivering.push()
        longest = max(longest, time.monotonic() - started)
        time.sleep(0.02)  # an epoch
    assert "training goes on" in said[0]
    assert "not delivered" in digitlab("train", "epochs=2", "study=cut", "seed=1").err
    team.start()
    longest = max(longest, push_until(record, delivering, 59))
    assert longest < 1.0, "no epoch waits"
    record.finish("FINISHED")
    assert delivering.finish()
    record.release()
    assert digitlab("sync").code == 0
    assert list(all_records(project.records())) == []

    store = RunStore(team.uri)
    runs = store.runs("cut")
    assert [run.status for run in runs] == ["FINISHED"] * 3
    assert {len(store.history(run, "train/loss")) for run in runs} == {2, 59}
    count = "SELECT count(*), count(DISTINCT (run_uuid, key, step)) FROM metrics"
    ((points, distinct),) = team.query(count)
    assert points == distinct
    for run in runs:
        assert "config.yaml" in dict(store.artifacts(run))


def test_postgresql_without_a_server(
    team: TeamServer, digitlab: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One user's: by a socket, as its owner."""
    monkeypatch.setenv("PGHOST", str(team.folder / "postgresql"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    for uri in ("postgresql:///digitlab", "postgresql+psycopg:///digitlab"):
        assert digitlab("train", "epochs=1", "study=direct", f"tracking.uri={uri}").code == 0
    listed = digitlab("runs", "--study", "direct", "--tracking-uri", uri)
    assert listed.out.count("FINISHED") == 2
    assert f"OK    tracking store      {uri}" in digitlab("doctor", f"tracking.uri={uri}").out
    unknown = digitlab("runs", "--tracking-uri", "postgresql://me:hunter2@/nowhere")
    assert unknown.code == 4
    assert "hunter2" not in unknown.err
    assert len(unknown.err.splitlines()) == 1


def test_records_have_an_index(team: TeamServer) -> None:
    """Which PostgreSQL uses where there are many runs: experiments/scale."""
    index = "SELECT indexdef FROM pg_indexes WHERE indexname = 'digitlab_record'"
    wait_for(lambda: team.query(index), "the index is made")


def test_a_user_is_added_once(team: TeamServer) -> None:
    team.login("ada")
    with pytest.raises(subprocess.CalledProcessError) as refused:
        team.login("ada")
    assert "'ada' was not added: User (username=ada) already exists" in refused.value.stderr
    assert len(refused.value.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"SERVER_FOLDER": "/tmp/" + "x" * 90}, "too long for a socket"),
        ({"PYTHON": "/nowhere/python"}, "make setup"),
        ({"SERVER_PORT": "1", "SERVER_HOST": "203.0.113.1"}, "203.0.113.1:1 cannot be listened on"),
    ],
)
def test_what_it_cannot_work_with_is_told(settings: dict[str, str], said: str) -> None:
    environment = {**os.environ, "PYTHON": sys.executable, **settings}
    done = subprocess.run(
        ["sh", "docs/team_server/start.sh"],
        cwd=CHECKOUT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A bucket `runs` of a local S3 server, as environment variables to reach it by."""
    packages, uv = tmp_path / "packages", shutil.which("uv") or Path(sys.executable).with_name("uv")
    install = [str(uv), "pip", "install", "--quiet", "--python", sys.executable]
    try:
        subprocess.run([*install, "--target", str(packages), "moto[server]"], check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no moto could be installed: an S3 server for tests")
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-p", str(port)],
        env={**os.environ, "PYTHONPATH": str(packages)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(lambda: unreachable(address) is None, "it answers")
        keys = {"AWS_ACCESS_KEY_ID": "lab", "AWS_SECRET_ACCESS_KEY": "not for users"}
        boto3.client(
            "s3",
            endpoint_url=address,
            region_name="us-east-1",
            **{k.lower(): v for k, v in keys.items()},
        ).create_bucket(Bucket="runs")
        yield {**keys, "MLFLOW_S3_ENDPOINT_URL": address, "AWS_DEFAULT_REGION": "us-east-1"}
    finally:
        server.kill()
        server.wait()


@slow
def test_artifacts_go_into_a_bucket(
    bucket: dict[str, str], digitlab: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the server: who records needs no key of it."""
    team = TeamServer(SERVER_ARTIFACTS="s3://runs/lab", **bucket)
    try:
        team.start()
        for name, value in team.login("ada").items():
            monkeypatch.setenv(name, value)
        assert digitlab("train", "epochs=1", "study=s3").code == 0
        (run,) = RunStore(team.uri).runs("s3")
        assert digitlab("reproduce", run.run_id).code == 0
        assert not (team.folder / "artifacts").exists()
        s3 = boto3.client(
            "s3",
            endpoint_url=bucket["MLFLOW_S3_ENDPOINT_URL"],
            region_name="us-east-1",
            aws_access_key_id="lab",
            aws_secret_access_key="not for users",
        )
        keys = [item["Key"] for item in s3.list_objects_v2(Bucket="runs")["Contents"]]
        assert any(re.fullmatch(rf"lab/\d+/{run.run_id}/artifacts/record.json", key) for key in keys)
    finally:
        team.delete()
