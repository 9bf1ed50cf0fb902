"""The command `digitlab config`: what would run, where it is set, and what may be set."""

from collections.abc import Sequence

import click

from digitlab.cli.options import OVERRIDES
from digitlab.text.terminal import echo


@click.command()
@OVERRIDES
@click.option("--sources", is_flag=True, help="Say which file or override set each knob.")
@click.option("--knobs", is_flag=True, help="Explain every knob and what it may be.")
def config(overrides: tuple[str, ...], sources: bool, knobs: bool) -> None:
    """Print the resolved configuration; creates no run."""

    if knobs:
        explain_knobs(overrides)
    elif sources:
        print_sources(overrides)
    else:
        print_config(overrides)


def print_config(overrides: Sequence[str]) -> None:
    from digitlab.config.checking import to_dict
    from digitlab.config.composition import compose
    from digitlab.text import yaml_text

    echo(yaml_text.dump(to_dict(compose(overrides))), nl=False)


def print_sources(overrides: Sequence[str]) -> None:
    import json  # 2 ms of every command's start

    from digitlab.config.composition import sources

    set_by = sources(overrides)
    rows = [(path, json.dumps(value), source) for path, (value, source) in set_by.items()]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for path, value, source in rows:
        echo(f"{path:{widths[0]}}  {value:{widths[1]}}  {source}")


def explain_knobs(overrides: Sequence[str]) -> None:
    """All knobs, and what those of the composition are; with overrides only these."""
    from digitlab.config.checking import as_param, flatten, to_dict
    from digitlab.config.composition import compose
    from digitlab.config.knobs import groups, knobs
    from digitlab.config.schema import BUILT_IN

    composed = compose(overrides)
    values = flatten(to_dict(composed))
    choices: dict[str, str | None] = {}
    if overrides:
        choices = {group: getattr(composed, group).name for group in BUILT_IN}
    for knob in knobs(choices).values():
        if not knob.path.endswith(".name"):
            whose = f" (only {knob.group})" if knob.group else ""
            now = f"; now {as_param(values[knob.path])}" if knob.path in values else ""
            echo(f"{knob.path:26} {knob.help}{whose}\n{'':26} {knob.allowed}{now}")
    for group, names in groups().items():
        echo(f"{group + '=':26} choices: {', '.join(names)}")


COMMANDS = (config,)
