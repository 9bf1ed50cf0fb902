"""The commands about a project of one's own and its editor: init, schema."""

import click

from digitlab.cli.project import template
from digitlab.text.terminal import echo, say


@click.command()
@click.argument("name", metavar="NAME", type=click.Path())
def init(name: str) -> None:
    """Make a project: a folder with conf/, models.py, data.py, mlruns/ and a test.

    NAME is a folder that is not there yet or is empty; "." is this one.
    """
    import os
    import shlex
    from pathlib import Path

    from digitlab.cli.project import json_schema
    from digitlab.config import project

    folder = template.write(name)
    with project.standing_in(folder):
        json_schema.write()
    steps = [
        "digitlab train experiment=first",
        "digitlab sweep experiment=first model.hidden_units=16,64 'seed=range(3)'",
        "digitlab runs",
    ]
    if not folder.samefile(Path()):
        steps = [f"cd {shlex.quote(name)}", *steps]
    say(f"made a project in {folder}: its README.md says what is what. Next:")
    echo("\n".join(f"  {step}" for step in steps))
    if elsewhere := os.environ.get("DIGITLAB_HOME"):
        say(f"unset DIGITLAB_HOME first: it sends every command to {elsewhere}")


@click.command()
@click.argument("name", metavar="[NAME]", required=False)
def schema(name: str | None) -> None:
    """Write JSON Schema of the files of conf/ into conf/.schema/, where editors look for it.

    With NAME (model, sweep, experiment, config, resolved, ...) print that one instead.
    """
    from digitlab.cli.project import json_schema

    if name is None:
        echo(f"wrote {json_schema.write()}")
    else:
        echo(json_schema.text_of(name), nl=False)


COMMANDS = (init, schema)
