"""Who may import whom, read off the source."""

import ast
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "src" / "digitlab"
FILES = {
    "digitlab." + ".".join(f.relative_to(SOURCE).with_suffix("").parts): f for f in SOURCE.rglob("*.py")
}
MAY_IMPORT = {
    "mlflow": {
        "digitlab.tracking.store",
        "digitlab.tracking.model_format",
        "digitlab.tracking.sqlite_store",
        *(f"digitlab.tracking.{name}" for name in ("served_model", "registry", "upload")),
    },
    "hydra": {"digitlab.composition"},
    "torchvision": {"digitlab.datafiles"},
    "click": {
        *(
            "digitlab.cli",
            "digitlab.commands",
            "digitlab.looking",
            "digitlab.completion",
            "digitlab.doctor",
        ),
        *(
            f"digitlab.command_line.{name}"
            for name in ("options", "training", "comparing", "looking", "using")
        ),
        *("digitlab.user_interface", "digitlab.tables", "digitlab.reproduction.reproducing"),
        *("digitlab.sweep.launching", "digitlab.sweep.dry_run", "digitlab.sweep.listing"),
        *("digitlab.sweep.summary", "digitlab.comparison.presenting"),
        *("digitlab.inference.predicting", "digitlab.inference.demo"),
    },
    "optuna": {"digitlab.sweep.search", "digitlab.sweep.figures"},
    "matplotlib": {"digitlab.plots", "digitlab.sweep.figures", "digitlab.reporting.figures"},
    "plotly": {"digitlab.sweep.interactive"},
}
CORE = {f"digitlab.{n}" for n in ("config", "errors", "randomness", "data", "datafiles", "models")}
CORE |= {f"digitlab.{n}" for n in ("optimizers", "schedules", "evaluation", "training")}
CORE |= {"digitlab.embedded_digits", "digitlab.files"}


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
