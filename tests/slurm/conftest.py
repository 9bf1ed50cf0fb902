"""One cluster for all tests here. What its daemons logged is shown with a test that fails."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.slurm import cluster as slurm
from tests.slurm.cluster import Cluster


@pytest.fixture(scope="session")
def running_cluster() -> Iterator[Cluster]:
    if reason := slurm.missing():
        pytest.skip(reason)
    pytest.importorskip("submitit")
    with slurm.cluster() as made:
        yield made


@pytest.fixture
def cluster(running_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """An idle one, for whoever this process starts too."""
    for name, value in running_cluster.environment.items():
        monkeypatch.setenv(name, value)
    yield running_cluster
    running_cluster.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    report = yield
    made = getattr(item, "funcargs", {}).get("running_cluster")
    if report.failed and made:
        report.sections.append(("SLURM", made.logs()))
    return report
