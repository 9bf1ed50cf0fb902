"""The subcommands that use a trained model: what they are called with."""

import sys
from pathlib import Path

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


@click.command()
@click.argument("models", nargs=-1, required=True, metavar=f"{MODEL}...")
@click.option("--port", type=click.IntRange(1, 65535), help="Default: 5080, or the next free one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@TRACKING
def demo(models: tuple[str, ...], port: int | None, host: str, tracking_uri: str | None) -> None:
    """Open a page on which you draw a digit and see what one model, or two side by side, read.

    It works without a network. Ctrl-C ends it.
    """
    from digitlab import commands

    commands.demo(store_uri((), tracking_uri), models, host=host, port=port)


@click.command("export-onnx")
@click.argument("model", metavar=MODEL)
@click.argument("file", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path))
@TRACKING
def export_onnx(model: str, file: Path, tracking_uri: str | None) -> None:
    """Write a trained model as ONNX: uint8 images (N, 28, 28) in, probabilities (N, 10) out.

    Before the file is kept, onnxruntime's answers are compared with the model's, to 1e-5. Needs the
    optional packages: pip install 'digitlab[onnx]'.
    """
    from digitlab import commands

    commands.export_onnx(store_uri((), tracking_uri), model, file)


COMMANDS = (predict, promote, demo, export_onnx)
