"""A server that lists artifacts with names that lead elsewhere."""

from pathlib import Path

import pytest

from tests.faults.conftest import NewHome, Served
from tests.support.cli import Cli, in_ci

pytestmark = [pytest.mark.fault("F26"), in_ci]
RUN = ["train", "epochs=1", "record.plots=never", "study=hostile"]


@pytest.mark.parametrize("name", ["../../../evil.json", "/tmp/evil.json", "%2e%2e/evil.json"])
def test_nothing_is_written_or_read_elsewhere(
    name: str,
    served: Served,
    new_home: NewHome,
    digitlab: Cli,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, proxy = served
    monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.uri)
    new_home()
    trained = digitlab(*RUN)
    assert trained.code == 0
    run_id = trained.out.split()[1]
    rewritten = []

    def rewrite(request: str, content: bytes) -> bytes:
        is_listing = "artifacts" in request and b'"record.json"' in content
        rewritten.extend([request] * is_listing)
        return content.replace(b'"record.json"', f'"{name}"'.encode()) if is_listing else content

    monkeypatch.setattr(proxy, "rewrite", rewrite)
    for command in (["show"], ["show", "--plots"], ["reproduce"], ["export"]):
        words = [
            command[0],
            run_id,
            *command[1:],
            *([str(tmp_path / "x.zip")] * (command == ["export"])),
        ]
        result = digitlab(*words)
        assert result.code in (0, 1, 2, 4, 5)
        assert "Traceback" not in result.err
    assert rewritten, "the server has lied"
    assert not list(Path("/tmp").glob("evil*"))
    assert not list(tmp_path.rglob("*evil*"))
