"""`digitlab doctor`: what is wrong here, and how to mend it."""

import importlib.metadata
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from digitlab.config import project
from digitlab.config.data_schema import NUM_TRAIN, BuiltInDataConfig
from digitlab.data.files import is_present
from digitlab.data.places import folder_of
from digitlab.data.splits import load
from digitlab.errors import DigitlabError, TrackingError
from digitlab.models import products
from digitlab.runs import provenance
from digitlab.sweep.overview import damage
from digitlab.sweep.sweep_folder import all_sweeps
from digitlab.text.terminal import console, say, styled
from digitlab.tracking.connection.location import file_path, sqlite_file, unreachable, unusable
from digitlab.tracking.connection.relocation import update_addresses
from digitlab.tracking.delivery import Delivery, open_store
from digitlab.tracking.leftovers import (
    close_dead_records,
    close_dead_runs,
    find_remains,
    remove_remains,
)
from digitlab.tracking.names import METRICS_FILE
from digitlab.tracking.run_folder import (
    DamagedRecord,
    LaterRecord,
    RunFolder,
    all_records,
    waiting_records,
    wrong_clock,
)
from digitlab.training import arithmetic
from digitlab.training.fused.exactness import exactness
from digitlab.training.products import usual_product

MIN_FREE_BYTES = 1 << 30
AVX512_CORES = {"skylakex", "cooperlake", "sapphirerapids"}  # of OpenBLAS
STYLES = {"OK": "green", "WARN": "yellow", "FAIL": "red"}


class Warn(str):
    """The text of a check: worth knowing, though nothing is broken."""


def examine(uri: str) -> int:
    """Print a line for each check, with a remedy for each problem; returns 1 if one is FAIL, else 0.

    A check returns text, or Warn; it fails by raising DigitlabError.
    """
    checks: dict[str, Callable[[], str]] = {
        "environment": _environment,
        "dependencies": _dependencies,
        "compute": _compute,
        "engine": _engine,
        **{f"data {name}": lambda name=name: _data(name) for name in NUM_TRAIN},  # type: ignore[misc]
        "tracking store": lambda: _tracking(uri),
        "runs that died": lambda: _dead_runs(uri),
        "records": _records,
        "sweeps": _sweeps,
        "undelivered": _undelivered,
        "cut short": _cut_short,
        "disk": _disk,
        "clock": _clock,
    }
    out, marks = console(soft_wrap=True), set()
    for name, check in checks.items():
        try:
            text = check()
            mark = "WARN" if isinstance(text, Warn) else "OK"
        except DigitlabError as error:
            mark, text = "FAIL", str(error)
        marks.add(mark)
        out.print(styled(f"{mark:4}", STYLES[mark]), f"{name:18}", text, sep="  ")
    return 1 if "FAIL" in marks else 0


def _environment() -> str:
    if reason := provenance.unreadable_checkout():
        raise DigitlabError(reason)
    versions, here = provenance.versions(), provenance.code()
    dirty = ", with changes that are not committed" if here["dirty"] == "true" else ""
    software = f"Python {versions['python']}, digitlab {versions['digitlab']}"
    return f"{software}, commit {here['commit'][:8]}{dirty}"


def _dependencies() -> str:
    """The installed versions against requirements.lock."""
    lock = project.home() / "requirements.lock"
    if not lock.is_file():
        return "no requirements.lock beside conf/: not compared"
    different = []
    for name, version, marker in re.findall(r"^([\w.-]+)==(\S+)(.*)$", lock.read_text(), re.MULTILINE):
        try:
            installed = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # another platform's, or an extra
        if installed != version and ";" not in marker:
            different.append(f"{name} {installed} (pinned: {version})")
    if different:
        raise DigitlabError(
            f"{', '.join(different)}: `rm .venv/.installed && make setup` installs the pins"
        )
    return "as pinned in requirements.lock"


def _compute() -> str:
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    machine = arithmetic.machine()
    capability = torch.backends.cpu.get_cpu_capability()
    text = f"{machine['cpu']}, {machine['cores']} cores, {capability}, {gpu}, torch {torch.__version__}"
    core = os.environ.get("OPENBLAS_CORETYPE")
    if core and "AVX512" in capability and core.lower() not in AVX512_CORES:
        return Warn(
            f"{text}; OPENBLAS_CORETYPE={core} has numpy multiply for an older processor, at half the "
            "speed: unset it"
        )
    return text


def _engine() -> str:
    """Whether trials side by side have the bits that each has alone, in the usual shapes."""
    usual = usual_product()
    before = products.in_use()
    products.use(usual)
    try:
        return f"{exactness()}; logistic regressions multiply with {usual.name}"
    finally:
        products.use(before)


def _data(name: str) -> str:
    root = project.data_root(None)
    if not is_present(name, root):
        return f"not in {folder_of(name, root)}; downloaded when first used"
    any_values = {"root": None, "validation_size": 0, "split_seed": 0, "order_seed": None}
    dataset = load(BuiltInDataConfig(name=name, mean=0.0, std=1.0, **any_values))  # type: ignore[arg-type]
    where = "" if name == "digits" else f", in {folder_of(name, root)}"
    return f"intact, {len(dataset.train)} training and {len(dataset.test)} test images{where}"


def _tracking(uri: str) -> str:
    file = sqlite_file(uri)
    if file == project.mlruns() / "mlflow.db" and not file.exists():
        return "none yet: `digitlab train` makes it"
    if reason := unreachable(uri):
        start_it = "" if file else "start the server, or "
        raise DigitlabError(f"{reason}; {start_it}choose another store with tracking.uri=URI")
    open_store(uri).runs(limit=1)
    if reason := unusable(uri):
        return Warn(f"{reason}; what is there can be looked at")
    return f"{uri}{_moved(file) if file else ''}"


def _moved(file: Path) -> str:
    """Everything finds a store that was moved; MLflow's own programs find what its addresses say."""
    outdated = update_addresses(file)
    if not outdated:
        return ""
    example = next(iter(outdated))
    return (
        f", which was moved; mended: {len(outdated)} addresses, such as {file_path(example) or example}"
    )


def _dead_runs(uri: str) -> str:
    closed = close_dead_records(all_records(project.records()), say)
    for record in closed:
        Delivery(record, say).finish()
    names = [record.run.name for record in closed]
    if unreachable(uri) is None and unusable(uri) is None:
        try:
            names += [run.name for run in close_dead_runs(open_store(uri), project.records())]
        except TrackingError:  # which `_tracking` has said
            return Warn("; ".join([*_marked(names), "not looked for in the tracking store"]))
    return Warn(*_marked(names)) if names else "none"


def _marked(names: list[str]) -> list[str]:
    return [f"now marked KILLED: {', '.join(names)}"] if names else []


def _records() -> str:
    folders = {file.parent for file in project.records().glob("*/run.json")}
    readable = list(all_records(project.records()))
    problems = []
    unreadable = folders - {record.folder for record in readable}
    if later := set(filter(_is_of_later_version, unreadable)):
        problems.append(f"of a later digitlab, upgrade this one to read them: {_listed(later)}")
    if damaged := unreadable - later:
        problems.append(
            "damaged, to be looked at and deleted (repeating a sweep mends its own): "
            + _listed(damaged)
        )
    if partly := {record.folder / METRICS_FILE for record in readable if record.num_damaged_lines}:
        problems.append(f"lines are damaged and left out, what can be read is used: {_listed(partly)}")
    if remains := find_remains(project.mlruns()):
        problems.append(
            f"remains of crashes, `digitlab doctor --clean` removes them: {_listed(remains)}"
        )
    if problems:
        raise DigitlabError("; ".join(problems))
    return f"{len(readable)} on this disk"


def _is_of_later_version(folder: Path) -> bool:
    try:
        RunFolder.load(folder)
    except LaterRecord:
        return True
    except DamagedRecord:
        pass
    return False


def _sweeps() -> str:
    sweeps = all_sweeps(project.sweeps())
    if problems := [problem for folder in sweeps for problem in damage(folder)]:
        raise DigitlabError("; ".join(problems))
    return str(len(sweeps))


def clean() -> None:
    """Remove what crashes have left, and say what."""
    for path in (remains := find_remains(project.mlruns())):
        say(f"removed {path}")
    remove_remains(remains)


def _undelivered() -> str:
    waiting = [r for r in waiting_records(project.records()) if r.run.status != "RUNNING"]
    if waiting:
        raise DigitlabError(f"{len(waiting)} waiting for a store: `digitlab sync` delivers")
    return "none"


def _cut_short() -> str:
    """Runs that wait to be continued, and take room."""
    records = [r for r in all_records(project.records()) if r.delivered.is_closed]
    runs = [r for r in records if not (r.run.parent or r.run.is_parent)]
    if not runs:
        return "none"
    size = sum(file.stat().st_size for r in runs for file in r.folder.rglob("*") if file.is_file())
    names = [(r.delivered.run_id or r.run.record_id)[:8] for r in runs]
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    folder = project.records()
    return Warn(
        f"{', '.join(names[:5])}{more}: digitlab resume RUN goes on with them; "
        f"they take {size / 1e6:.1f} MB in {folder}, where any of them may be deleted"
    )


def _disk() -> str:
    folder = project.mlruns()
    free = shutil.disk_usage(next(p for p in (folder, *folder.parents) if p.exists())).free
    if free < MIN_FREE_BYTES:
        raise DigitlabError(f"{free / 1e9:.1f} GB free in {folder}: delete old runs or files")
    return f"{free / 1e9:.0f} GB free"


def _clock() -> str:
    if problem := wrong_clock():
        raise DigitlabError(problem)
    return time.strftime("%Y-%m-%d %H:%M:%S %Z")


def _listed(folders: Iterable[Path]) -> str:
    return ", ".join(sorted(map(str, folders)))
