"""Who may import which library, and what a room looks like; make check holds the order of the rooms."""

import ast
import re
from pathlib import Path

from digitlab.config.fingerprint import decides_numbers
from digitlab.tracking import names

SOURCE = Path(__file__).resolve().parents[1] / "src" / "digitlab"
FILES = {
    "digitlab." + ".".join(f.relative_to(SOURCE).with_suffix("").parts): f for f in SOURCE.rglob("*.py")
}
COMMANDS = (
    *("train", "recorded", "config", "compare", "model", "project.commands"),
    *("store.annotate", "store.cleaning", "store.importing", "store.listing"),
)
MAY_IMPORT = {
    "mlflow": {
        *(f"digitlab.tracking.{name}" for name in ("model_format", "served_model", "registry")),
        *(f"digitlab.tracking.{name}" for name in ("store", "upload")),
        *(f"digitlab.tracking.connection.{name}" for name in ("client", "sqlite_store", "relocation")),
        "digitlab.tracking.connection.ui_server",
        "digitlab.tracking.removal.trash",
    },
    "hydra": {f"digitlab.config.{name}" for name in ("composition", "conf_folder", "overrides")},
    "torchvision": {"digitlab.data.files"},
    "click": {
        *(f"digitlab.cli.{name}" for name in ("__init__", "options", "completion", *COMMANDS)),
        "digitlab.text.terminal",
    },
    "optuna": {"digitlab.sweep.search", "digitlab.results.figures"},
    "matplotlib": {
        *("digitlab.runs.plots", "digitlab.results.figures", "digitlab.results.report.knob_pictures"),
    },
    "plotly": {"digitlab.results.page"},
}
RUNS_KNOWN = tuple(
    f"digitlab.{room}."
    for room in ("cli", "inference", "reproduction", "sweep", "results", "runs", "tracking")
)
MOST = 12  # modules of a folder, without its __init__

# Where numbers are computed: a data set, a training from its first step or a checkpoint, its device.
COMPUTES = {
    *("digitlab.data.splits", "digitlab.models.build", "digitlab.runs.checkpoints"),
    *(f"digitlab.training.{n}" for n in ("devices", "evaluation", "loop", "resumable")),
    *(f"digitlab.training.fused.{n}" for n in ("exactness", "loop")),
}
# What these import and is nevertheless without numbers, and why.
USED_WITHOUT_NUMBERS = {
    "errors": "ends a training, with a message",
    "config.checking": "reads the configuration of saved weights",
    "config.components.lookup": "finds what a user has registered, whose own source decides",
    "config.components.origins": "says where a user's source failed",
    "config.project": "says where fused/exact_ways keeps what it has tried",
    "config.fingerprint": "tells fused/exact_ways whether the source is the one that it has tried",
    "text.yaml_text": "prints a configuration",
    "text.formats": "tells versions of a checkpoint apart",
    "text.files": "reads and writes files, whole or not at all",
    "text.progress": "says how far reading has come",
    "runs.interrupts": "ends a training between two steps",
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


def test_nothing_lies_at_the_root_but_rooms_and_what_all_of_them_use() -> None:
    files = {file.name for file in SOURCE.glob("*.py")}
    assert files == {"__init__.py", "errors.py", "randomness.py"}


def test_a_room_is_small_and_says_what_it_is_for() -> None:
    for folder in {file.parent for file in FILES.values()} - {SOURCE}:
        modules = [file for file in folder.glob("*.py") if file.name != "__init__.py"]
        assert len(modules) <= MOST, f"{folder.name}: make a room of its own of some of them"
        said = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
        assert 3 <= len(said.splitlines()) <= 5, f"{folder.name}: what it is for, in about three lines"
        assert re.search(r"(?i)must not|imports nothing", said), f"{folder.name}: what it must not know"
        start = re.search(r"Start with\s+([\w/]+\.py)", said)
        assert start, f"{folder.name}: where one starts reading"
        assert (folder / start[1]).exists(), start[1]


def test_what_a_run_leaves_is_named_in_one_place() -> None:
    """In tracking/names.py; no other file of the rooms that know runs spells one."""
    constants = [value for name, value in vars(names).items() if name.isupper()]
    named = {value for value in constants if isinstance(value, str) and re.search("[./]", value)}
    assert len(named) > 50
    for module in (name for name in FILES if name.startswith(RUNS_KNOWN) and name != names.__name__):
        for node in ast.walk(ast.parse(FILES[module].read_text())):
            if isinstance(node, ast.Constant):
                assert node.value not in named, f"{module}, line {node.lineno}: {node.value}"
            # `sweep` is a tag, and much else: of tags no text is the key.
            key = _key_of_tags(node)
            assert not isinstance(key, ast.Constant), f"{module}: {ast.unparse(node)}"


def _key_of_tags(node: ast.AST) -> ast.expr | None:
    """The key in `tags[key]` or `tags.get(key)`."""
    match node:
        case ast.Subscript(value=value, slice=key):
            pass
        case ast.Call(func=ast.Attribute(value=value, attr="get" | "pop"), args=[key, *_]):
            pass
        case _:
            return None
    return key if ast.unparse(value).endswith("tags") else None


def test_slow_libraries_are_never_imported_at_the_top_of_the_command_line() -> None:
    names = ["errors", "config.project", "config.composition", "config.schema", "cli.__init__"]
    names += [f"cli.{name}" for name in ("options", "completion", *COMMANDS)]
    for name in names:
        roots = {m.partition(".")[0] for m in imports(FILES[f"digitlab.{name}"], everywhere=False)}
        assert not roots & {"torch", "mlflow", "pandas", "matplotlib", "sklearn"}, name


def test_the_controller_of_a_sweep_does_not_wait_for_slow_libraries() -> None:
    """Its workers import torch meanwhile."""
    seen: set[str] = set()
    left = {"digitlab.sweep.launch"}
    while left:
        name = left.pop()
        seen.add(name)
        modules = imports(FILES[name], everywhere=False)
        slow = {m.partition(".")[0] for m in modules} & {"torch", "mlflow", "optuna", "matplotlib"}
        assert not slow, name
        left |= {module for module in modules if module in FILES} - seen


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
    assert not any(decides_numbers(f"{name.replace('.', '/')}.py") for name in used)


def test_a_file_that_is_unknown_decides_numbers() -> None:
    assert decides_numbers("mlp.py")
    assert decides_numbers("training/loop.py")
