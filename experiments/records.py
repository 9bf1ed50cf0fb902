"""All published records made anew, from a clean commit: natively and in portable arithmetic.

    .venv/bin/python -m experiments.records           train and write every experiment, then as --again
    .venv/bin/python -m experiments.records --again   run the records there are, in both arithmetics

Trains in a project of its own, mlruns/published/COMMIT, so that what was trained before is neither used
nor touched; started again on the same commit, it goes on. Publish the commit first, so that others can
have it for `digitlab reproduce FILE --code recorded`.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from digitlab.config import project
from digitlab.runs import document, provenance
from digitlab.tracking.names import RECORD_FILE
from experiments import reporting as r

HERE = Path(__file__).parent
STUDIES = ("tutorial", "optimizers", "budget", "search", "rounding")
PORTABLE = ".portable.json"
AGREE = {
    "native": ("IDENTICAL",),  # the results beside it hold on this processor
    "portable": ("IDENTICAL", "SAME COMPUTATION, OTHER ROUNDING"),
}


def main() -> None:
    code = provenance.code()
    if code["dirty"] != "false":
        sys.exit("records are published from a clean commit: commit, or stash, what was changed")
    home = project.mlruns() / "published" / code["commit"]
    if "--again" not in sys.argv:
        for study in STUDIES:
            if _run(home, f"experiments.{study}.run").returncode:
                sys.exit(f"the experiment {study} has failed")
    for file in native_records():
        for arithmetic, made in (("portable", portable_of(file)), ("native", file)):
            _run_again(home / "again", file, arithmetic, made, code["commit"])


def native_records() -> list[Path]:
    return [f for f in sorted(HERE.glob("*/records/*.json")) if not f.name.endswith(PORTABLE)]


def portable_of(file: Path) -> Path:
    """Where the portable record of a native one lies."""
    return file.with_name(file.stem + PORTABLE)


def _run_again(home: Path, file: Path, arithmetic: str, made: Path, commit: str) -> None:
    """Publish the run of a record in this arithmetic, unless this commit has made it."""
    if made.exists() and document.parse(made.read_bytes()).code.commit == commit:
        return
    arguments = ("reproduce", str(file.relative_to(HERE.parent)), "--arithmetic", arithmetic, "--json")
    told = _run(home, "digitlab.cli", *arguments, stdout=subprocess.PIPE).stdout
    verdict = json.loads(told)
    if verdict["kind"] not in AGREE[arithmetic]:
        sys.exit(f"{file}, {arithmetic}, is {verdict['kind']}: {verdict['cause']}")
    (record,) = home.glob(f"mlruns/artifacts/*/{verdict['repeated']}/artifacts/{RECORD_FILE}")
    r.publish(document.parse(record.read_bytes()), made)


def _run(
    home: Path, module: str, *arguments: str, stdout: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a module in the project `home`."""
    if not home.exists():
        shutil.copytree(project.conf(), home / "conf")
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env={**os.environ, "DIGITLAB_HOME": str(home)},
        cwd=HERE.parent,
        stdout=stdout,
        text=True,
        check=False,
    )


if __name__ == "__main__":
    main()
