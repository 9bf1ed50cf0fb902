"""A scheduler with two workers for each test here."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dask.cluster import DaskCluster, dask_cluster


@pytest.fixture
def cluster(home: Path, tmp_path: Path) -> Iterator[DaskCluster]:
    pytest.importorskip("distributed")
    with dask_cluster(tmp_path / "dask") as made:
        yield made
