"""TAB completion of subcommands, Hydra overrides, ids and files, from the schema, conf/ and the store.

Imports neither Hydra nor torch: 0.2 s a TAB, where Hydra's own takes 0.85 s.
"""

import functools
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from click import Argument, Command, Context, Parameter
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    add_completion_class,
    get_completion_class,
)

from digitlab.errors import UsageError
from digitlab.text.terminal import printable

if TYPE_CHECKING:
    from digitlab.tracking.connection.catalogue import Kind

PATHS = ("data.path", "data.root")  # knobs that name a file or a folder
Completer = Callable[[Context, Parameter, str], list[CompletionItem]]


class SpacelessBashComplete(BashComplete):
    """Click's bash completion, without the space after `knob=`."""

    name = "bash"
    source_template = BashComplete.source_template.replace(
        "    return 0\n",
        "    [[ ${COMPREPLY[0]} == *= ]] && compopt -o nospace\n    return 0\n",
        1,
    )


def register_shells() -> None:
    add_completion_class(SpacelessBashComplete)


def script(command: Command, shell: str) -> str:
    """The script that makes `shell` complete this command."""
    register_shells()
    kind = get_completion_class(shell)
    assert kind is not None, "the command line offers known shells only"
    return kind(command, {}, "digitlab", "_DIGITLAB_COMPLETE").source()


def _silent_outside_a_project(completer: Completer) -> Completer:
    """A message amid the line that is being typed would help nobody."""

    @functools.wraps(completer)
    def complete(context: Context, parameter: Parameter, incomplete: str) -> list[CompletionItem]:
        try:
            return completer(context, parameter, incomplete)
        except UsageError:
            return []

    return complete


@_silent_outside_a_project
def complete_override(context: Context, parameter: Parameter, incomplete: str) -> list[CompletionItem]:
    """`mod` to `model=` and `model.`..., `model=c` to `model=cnn`, `device=` to its choices."""
    assert isinstance(parameter, Argument)
    words = tuple(context.params.get(parameter.name or "") or ())
    if (pending := _pending_key(words)) and (words[-1] == "=" or not incomplete):
        if pending in PATHS:  # bash, which has split the word, completes the file itself
            return [CompletionItem(incomplete, type="file")]
        return [CompletionItem(value) for value in _completed(pending, incomplete, words)]
    key, equals, value = incomplete.partition("=")
    if equals and key in PATHS:
        return [CompletionItem(f"{key}={path}") for path in _paths(value)]
    if equals:
        return [CompletionItem(f"{key}={choice}") for choice in _completed(key, value, words)]
    return [CompletionItem(name) for name in _names(words) if name.startswith(incomplete)]


def complete_names(*kinds: "Kind | Literal['file', 'override']") -> Completer:
    """Completes what `kinds` name: ids of runs and sweeps, names of studies, files, overrides."""

    @_silent_outside_a_project
    def completer(context: Context, parameter: Parameter, incomplete: str) -> list[CompletionItem]:
        from digitlab.tracking.connection.catalogue import names

        items = []
        for kind in kinds:
            if kind == "override":
                items += complete_override(context, parameter, incomplete)
            elif kind != "file":
                items += [
                    CompletionItem(name, help=" ".join(printable(called).split()))
                    for name, called in names(kind, incomplete)
                    if shlex.quote(name) == name  # another may be a command to the shell
                ]
        return items or [CompletionItem(incomplete, type="file")] * ("file" in kinds)

    return completer


def _completed(key: str, value: str, words: tuple[str, ...]) -> list[str]:
    """The choices that `value` begins; of several values, `cnn,log`, the last."""
    given, comma, last = value.rpartition(",")
    known = [choice for choice in _values(key, words) if choice not in given.split(",")]
    return [f"{given}{comma}{choice}" for choice in known if choice.startswith(last)]


def _paths(start: str) -> list[str]:
    """Files and folders that `start` begins; a folder with the slash that leads into it."""
    folder, slash, name = start.rpartition("/")
    try:
        entries = sorted(Path(folder + slash or ".").expanduser().iterdir())
    except (OSError, RuntimeError):
        return []
    return [
        f"{folder}{slash}{entry.name}{'/' * entry.is_dir()}"
        for entry in entries
        if entry.name.startswith(name) and (name or not entry.name.startswith("."))
    ]


def _pending_key(words: tuple[str, ...]) -> str | None:
    """The knob whose value comes next, where bash has split words at "=": `model` `=` ...

    Right behind the "=" click hands over an empty word instead, which leaves `model` alone.
    """
    if len(words) >= 2 and words[-1] == "=":
        return words[-2]
    is_value = len(words) >= 2 and words[-2] == "="
    return words[-1] if words and "=" not in words[-1] and not is_value else None


def _values(key: str, words: tuple[str, ...]) -> list[str]:
    from digitlab.config.knobs import groups, knobs

    known = knobs(_choices(words))
    if key in known:
        return list(known[key].choices)
    return groups().get(key, [])


def _names(words: tuple[str, ...]) -> list[str]:
    """Groups and knobs as they stand before the equals sign; only the chosen model's knobs."""
    from digitlab.config.knobs import groups, knobs

    names = [*groups(), *knobs(_choices(words))]
    return [f"{name}=" for name in names if not name.endswith(".name")]


def _choices(words: tuple[str, ...]) -> dict[str, str | None]:
    """The groups' defaults, and those chosen on the line: `model=cnn`, or `model`, `=`, `cnn`."""
    from digitlab.config import project

    joined = " ".join(words).replace(" = ", "=").split()
    typed = {key: value for key, _, value in (word.partition("=") for word in joined) if value}
    return {**project.default_choices(), **typed}
