"""The commands that compare runs: compare, report. What they need is imported when they are called."""

from pathlib import Path

import click

from digitlab.api.settling import opened_store
from digitlab.cli.completion import complete_names
from digitlab.cli.options import JSON, TRACKING, store_uri
from digitlab.text.terminal import echo, say


@click.command()
@click.argument(
    "references",
    nargs=-1,
    required=True,
    metavar="RUN|SWEEP|STUDY...",
    shell_complete=complete_names("run", "sweep", "study"),
)
@click.option("--sort", metavar="METRIC", help="validation/accuracy (default), test/accuracy, .../loss")
@click.option(
    "--against",
    metavar="RUN",
    shell_complete=complete_names("run"),
    help="Test all differences to this run's row, not to the best.",
)
@click.option("--diff", is_flag=True, help="Also what differs: knobs, code, data, versions, machine.")
@click.option(
    "--disagreements",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="OUT.png|pdf|svg",
    help="Draw the test images that two models read differently.",
)
@click.option("--csv", "form", flag_value="csv", help="As CSV, in full precision.")
@click.option("--markdown", "form", flag_value="markdown", help="As Markdown.")
@click.option(
    "--latex", "form", flag_value="latex", help="The table as LaTeX, the rest as its comments."
)
@JSON
@TRACKING
def compare(
    references: tuple[str, ...],
    sort: str | None,
    against: str | None,
    diff: bool,
    disagreements: Path | None,
    form: str | None,
    as_json: bool,
    tracking_uri: str | None,
) -> None:
    """Compare runs: what differs, what came out, and which differences are real.

    Runs that are named one by one get a row each, and differences are tested on the test images that
    both were asked (McNemar). Of a sweep or a study, runs that differ in their seed only share a row
    with their mean, and differences are tested over seeds (t-tests). Other code that decides numbers is
    a row of its own. All p-values are corrected for the number of comparisons (Holm).
    """
    store = opened_store(store_uri((), tracking_uri))
    from digitlab.results.compare import presenting
    from digitlab.results.compare.compare import compare as compare_runs
    from digitlab.results.compare.compare import draw_disagreements
    from digitlab.results.compare.differences import differences
    from digitlab.sweep.lookup import choose, choose_all

    reference = choose(store, against) if against else None
    comparison = compare_runs(store, choose_all(store, references), sort=sort, against=reference)
    runs = [group.runs[0] for group in comparison.groups]
    differing = differences(store, runs) if diff else None
    match "json" if as_json else form:
        case "json":
            echo(presenting.as_json(comparison, differing))
        case "csv":
            echo(presenting.as_csv(comparison), nl=False)
        case "markdown":
            echo(presenting.as_markdown(comparison, differing or ()), nl=False)
        case "latex":
            echo(presenting.as_latex(comparison), nl=False)
        case _:
            presenting.print_comparison(comparison, differing or ())
    if disagreements:
        count = draw_disagreements(store, comparison, disagreements)
        say(f"wrote {disagreements}: {count} test images read differently")


@click.command()
@click.argument("reference", metavar="SWEEP|STUDY", shell_complete=complete_names("sweep", "study"))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder to write to; default: report-NAME.",
)
@click.option("--question", metavar="TEXT", help="What was asked; default: what the knobs do.")
@click.option("--sort", metavar="METRIC", help="As of `digitlab compare`.")
@click.option(
    "--vector",
    type=click.Choice(["pdf", "svg"]),
    help="For a thesis: the figures in this form, too, and the table as LaTeX (table.tex).",
)
@TRACKING
def report(
    reference: str,
    output: Path | None,
    question: str | None,
    sort: str | None,
    vector: str | None,
    tracking_uri: str | None,
) -> None:
    """Write a report of a sweep or a study: one page that needs no network, and Markdown.

    Question, command, table, which differences are real, accuracy against each knob, parallel
    coordinates, learning curves, confusion matrices, worst mistakes, environment, how to reproduce it.
    A sweep's report is also added to its own run in the store.
    """
    store = opened_store(store_uri((), tracking_uri))
    from digitlab.results.report.write import write_report
    from digitlab.sweep.lookup import choose

    say("writing the report")
    chosen = choose(store, reference)
    written = write_report(store, chosen, output, question=question, sort=sort, vector=vector)
    echo(f"wrote {written.page} and {written.markdown}")
    if written.own_run:
        echo(f"  also an artifact of the sweep: digitlab ui {written.own_run}")


COMMANDS = (compare, report)
