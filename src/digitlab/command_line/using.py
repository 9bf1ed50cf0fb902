"""The subcommands that use a trained model: what they are called with."""

import sys

import click

from digitlab.command_line.options import JSON, TRACKING, store_uri

MODEL = "RUN|SWEEP|NAME@ALIAS"


@click.command()
@click.argument("model", metavar=MODEL)
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("--no-normalise", is_flag=True, help="Take 28x28 pictures, white on black, as they are.")
@JSON
@TRACKING
def predict(
    model: str, images: tuple[str, ...], no_normalise: bool, as_json: bool, tracking_uri: str | None
) -> None:
    """Read digits on pictures with a trained model.

    IMAGE is a PNG, JPEG, BMP or GIF file, a folder of them, or - for standard input: a photo of ink on
    paper, or white on black. It is brought to the form of the images that the model was trained on, as
    MNIST's authors did: cropped, fitted, centred by mass. The model is a run's, a sweep's best by
    validation, or one from the registry (NAME@ALIAS, NAME/VERSION).

    Exit code 2 if a picture was refused; the others are read all the same.
    """
    from digitlab import commands

    uri = store_uri((), tracking_uri)
    sys.exit(commands.predict(uri, model, images, as_given=no_normalise, as_json=as_json))


@click.command()
@click.argument("run", metavar="RUN|SWEEP")
@click.argument("name", metavar="NAME[@ALIAS]")
@TRACKING
def promote(run: str, name: str, tracking_uri: str | None) -> None:
    """Register a run's model (a sweep's: its best trial's) under a name, as its next version."""
    from digitlab import commands

    commands.promote(store_uri((), tracking_uri), run, name)


COMMANDS = (predict, promote)
