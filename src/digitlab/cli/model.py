"""The commands that use a trained model: predict, promote, demo, export-onnx.

What they need is imported when they are called.
"""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from digitlab.api.settling import opened_store
from digitlab.cli.completion import complete_names
from digitlab.cli.options import JSON, TRACKING, store_uri
from digitlab.text.terminal import echo, say

if TYPE_CHECKING:
    from digitlab.inference.trained_model import TrainedModel

MODEL = "RUN|SWEEP|NAME@ALIAS"


@click.command()
@click.argument("model", metavar=MODEL, shell_complete=complete_names("run", "sweep"))
@click.argument("images", nargs=-1, required=True, type=click.Path(), metavar="IMAGE...")
@click.option(
    "--no-normalise",
    is_flag=True,
    help="Take pictures of the model's size, digits white on black, as they are.",
)
@click.option(
    "--labels",
    type=click.Choice(["folder"]),
    help="Score: the right class is the name of each picture's folder (or its number, from 0).",
)
@JSON
@TRACKING
def predict(
    model: str,
    images: tuple[str, ...],
    no_normalise: bool,
    labels: str | None,
    as_json: bool,
    tracking_uri: str | None,
) -> None:
    """Read digits, or classes of your own data, on pictures with a trained model.

    IMAGE is a PNG, JPEG, BMP or GIF file, a folder of them, or - for standard input: a photo of ink on
    paper, or white on black. It is brought to the form of the images that the model was trained on, as
    MNIST's authors did: cropped, fitted, centred by mass. For a model of your own data it is brought to
    the shape of their images, as they were. The model is a run's, a sweep's best by validation, or one
    from the registry (NAME@ALIAS, NAME/VERSION).

    With --labels folder, IMAGE may be a folder with a folder for each class: then accuracy, confusion
    and the worst mistakes are shown.

    Exit code 2 if a picture was refused; the others are read all the same.
    """
    from digitlab.inference.images import check_any_exists
    from digitlab.inference.predict import predict_files, score_files

    check_any_exists(images)
    trained = _trained(tracking_uri, model)
    _warn_of_small_data(trained)
    command = score_files if labels == "folder" else predict_files
    sys.exit(command(trained, images, as_given=no_normalise, as_json=as_json))


@click.command()
@click.argument("run", metavar=MODEL, shell_complete=complete_names("run", "sweep"))
@click.argument("name", metavar="NAME[@ALIAS]")
@TRACKING
def promote(run: str, name: str, tracking_uri: str | None) -> None:
    """Register a run's model (a sweep's: its best trial's) under a name, as its next version.

    A model that is registered already gets the other name or alias as well.
    """
    store = opened_store(store_uri((), tracking_uri))
    from digitlab.inference.promote import promote as register

    name, at, alias = name.partition("@")
    run_id, version, before = register(store, run, name, alias if at else None)
    asked = f"{name}@{alias}" if alias else f"{name}/{version}"
    moved = f" (before: version {before})" if before not in (None, version) else ""
    suffix = f", {alias}{moved}" if alias else ""
    echo(f"run {run_id[:8]} is version {version} of {name}{suffix}")
    echo(f"  use it:   digitlab predict {shlex.quote(asked)} IMAGE...")
    address, served = shlex.quote(store.uri), shlex.quote(f"models:/{asked}")
    echo(
        f"  serve it: MLFLOW_TRACKING_URI={address} mlflow models serve -m {served} "
        "--env-manager local --port 5001"
    )


@click.command()
@click.argument(
    "models",
    nargs=-1,
    required=True,
    metavar=f"{MODEL}...",
    shell_complete=complete_names("run", "sweep"),
)
@click.option("--port", type=click.IntRange(1, 65535), help="Default: 5080, or the next free one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@TRACKING
def demo(models: tuple[str, ...], port: int | None, host: str, tracking_uri: str | None) -> None:
    """Open a page on which you draw a digit and see what one model, or two side by side, read.

    It works without a network. Ctrl-C ends it.
    """
    from digitlab.cli import options
    from digitlab.inference.demo import FIRST_PORT, serve

    trained = [_trained(tracking_uri, model) for model in models]
    _warn_of_small_data(*trained)
    chosen = options.choose_port(host, port, FIRST_PORT)
    serve(trained, host=host, port=chosen, address=options.address(host, chosen))


@click.command("export-onnx")
@click.argument("model", metavar=MODEL, shell_complete=complete_names("run", "sweep"))
@click.argument("file", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path))
@TRACKING
def export_onnx(model: str, file: Path, tracking_uri: str | None) -> None:
    """Write a trained model as ONNX: uint8 images in, (N, 28, 28) for MNIST, probabilities out.

    Before the file is kept, onnxruntime's answers are compared with the model's, to 1e-5. Needs the
    optional packages: pip install 'digitlab[onnx]'.
    """
    from digitlab.inference.onnx_export import export_onnx as write

    difference = write(_trained(tracking_uri, model), file)
    size = file.stat().st_size / 1e3
    echo(f"wrote {file} ({size:,.0f} kB); onnxruntime agrees with the model to {difference:.0e}")


def _trained(tracking_uri: str | None, reference: str) -> "TrainedModel":
    store = opened_store(store_uri((), tracking_uri))
    from digitlab.inference.trained_model import load_model

    return load_model(store, reference)


def _warn_of_small_data(*models: "TrainedModel") -> None:
    if any(model.data_name == "digits" for model in models):
        say(
            "trained on the small embedded set (1,437 images of 8x8 pixels): for drawings of your own "
            "train on MNIST, digitlab train data=mnist model=cnn epochs=3"
        )


COMMANDS = (predict, promote, demo, export_onnx)
