"""Who may import whom, read off the source."""

import ast
from pathlib import Path

from digitlab.fingerprint import decides_numbers

SOURCE = Path(__file__).resolve().parents[1] / "src" / "digitlab"
FILES = {
    "digitlab." + ".".join(f.relative_to(SOURCE).with_suffix("").parts): f for f in SOURCE.rglob("*.py")
}
MAY_IMPORT = {
    "mlflow": {
        "digitlab.tracking.client",
        "digitlab.tracking.model_format",
        *(f"digitlab.tracking.{name}" for name in ("sqlite_store", "relocation", "store")),
        *(f"digitlab.tracking.{name}" for name in ("served_model", "registry", "upload", "ui_server")),
    },
    "hydra": {"digitlab.composition", "digitlab.overrides"},
    "torchvision": {"digitlab.datafiles"},
    "click": {
        *("digitlab.cli", "digitlab.completion", "digitlab.terminal"),
        *(
            f"digitlab.command_line.{name}"
            for name in ("options", "training", "comparing", "looking", "using")
        ),
    },
    "optuna": {"digitlab.sweep.search", "digitlab.sweep.figures"},
    "matplotlib": {"digitlab.plots", "digitlab.sweep.figures", "digitlab.reporting.figures"},
    "plotly": {"digitlab.sweep.interactive"},
}
CORE = {f"digitlab.{n}" for n in ("config", "errors", "randomness", "data", "datafiles", "models")}
CORE |= {f"digitlab.{n}" for n in ("optimizers", "schedules", "evaluation", "training")}
CORE |= {"digitlab.embedded_digits", "digitlab.files"}

# Where numbers are computed: a data set, a training from its first step or a checkpoint, its device.
COMPUTES = {"data", "devices", "evaluation", "models", "resumable", "training"}
COMPUTES = {f"digitlab.{n}" for n in (*COMPUTES, "checkpoint", "fused.exactness", "fused.training")}
# What these import and is nevertheless without numbers, and why.
USED_WITHOUT_NUMBERS = {
    "errors": "ends a training, with a message",
    "provenance": "names the processor",
    "project": "says where fused/forms keeps what it has tried",
    "record": "writes a file",
    "fingerprint": "tells fused/forms whether the source is the one that it has tried",
    "interrupts": "ends a training between two steps",
    "serving": "digests weights and keeps them to the bit",
}


def imports(file: Path, *, everywhere: bool) -> set[str]:
    """Modules imported at the top of a file, or anywhere in it."""
    tree = ast.parse(file.read_text())
    nodes = ast.walk(tree) if everywhere else tree.body
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_each_library_is_known_to_its_adapter_only() -> None:
    for library, allowed in MAY_IMPORT.items():
        users = {
            name
            for name, file in FILES.items()
            if library in {module.partition(".")[0] for module in imports(file, everywhere=True)}
        }
        assert users == allowed, library


def test_the_core_knows_no_command_line_no_files_of_runs_and_no_tracker() -> None:
    for name in CORE:
        inner = {module for module in imports(FILES[name], everywhere=True) if module in FILES}
        assert inner <= CORE, name


def test_no_file_imports_one_that_imports_it() -> None:
    graph = {
        name: {module for module in imports(file, everywhere=False) if module in FILES}
        for name, file in FILES.items()
    }
    while graph:
        leaves = {name for name, needs in graph.items() if not needs & graph.keys()}
        assert leaves, f"a circle among {sorted(graph)}"
        graph = {name: needs for name, needs in graph.items() if name not in leaves}


def test_slow_libraries_are_never_imported_at_the_top_of_the_command_line() -> None:
    names = ["cli", "completion", "errors", "project", "commands", "looking", "composition", "config"]
    names += [name.removeprefix("digitlab.") for name in FILES if ".command_line." in name]
    for name in names:
        roots = {m.partition(".")[0] for m in imports(FILES[f"digitlab.{name}"], everywhere=False)}
        assert not roots & {"torch", "mlflow", "pandas", "matplotlib", "sklearn"}, name


def test_what_computes_numbers_is_what_decides_them() -> None:
    """By walking all imports, lazy ones too, from where numbers are computed."""
    decisive, used, left = set(), set(), set(COMPUTES)
    while left:
        name = left.pop()
        decisive.add(name)
        for inner in (module for module in imports(FILES[name], everywhere=True) if module in FILES):
            if inner.removeprefix("digitlab.") in USED_WITHOUT_NUMBERS:
                used.add(inner.removeprefix("digitlab."))
            elif inner not in decisive:
                left.add(inner)
    names = {name: file.relative_to(SOURCE).as_posix() for name, file in FILES.items()}
    not_packages = {file for file in names.values() if not file.endswith("/__init__.py")}
    assert {names[name] for name in decisive} == set(filter(decides_numbers, not_packages)), (
        "name a file that decides no number in fingerprint.WITHOUT_NUMBERS"
    )
    assert used == USED_WITHOUT_NUMBERS.keys(), "a reason that is no longer needed"
    assert not any(decides_numbers(f"{name}.py") for name in used)


def test_a_file_that_is_unknown_decides_numbers() -> None:
    assert decides_numbers("mlp.py")
    assert decides_numbers("training/loop.py")
