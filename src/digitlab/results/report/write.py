"""`digitlab report`: a sweep or a study as one page to hand on."""

import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from digitlab.errors import UsageError
from digitlab.results.compare.compare import compare
from digitlab.results.compare.presenting import as_latex
from digitlab.results.report.contents import gather
from digitlab.results.report.pages import write_html, write_markdown
from digitlab.tracking.connection.location import unusable
from digitlab.tracking.store import RunStore
from digitlab.tracking.stored_run import Chosen

ARTIFACT_FOLDER = "report"  # of the sweep's own run


@dataclass(frozen=True, slots=True)
class Written:
    """page, markdown: files. own_run: the sweep's run that has the report, too; None for a study, or
    if the store can only be read."""

    page: Path
    markdown: Path
    own_run: str | None


def write_report(
    store: RunStore,
    chosen: Chosen,
    folder: Path | None,
    *,
    question: str | None,
    sort: str | None,
    vector: str | None = None,
) -> Written:
    """Into `folder` (default: report-NAME here), and to the sweep's own run.

    vector: `pdf` or `svg` for the figures in this form, too, and the table as table.tex.

    Raises:
        UsageError: a single run, nothing finished; the folder is a file.
    """
    if chosen.kind == "run":
        raise UsageError(
            f"{chosen.asked} is a single run, which `digitlab show {chosen.asked}` shows: a report "
            "is of a sweep or a study"
        )
    comparison = compare(store, [chosen], sort=sort)
    folder = folder or Path(f"report-{re.sub(r'[^A-Za-z0-9._-]+', '-', chosen.name).strip('-.')}")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"-o {folder}: that is a file; name a folder")
    with tempfile.TemporaryDirectory() as scratch:
        draft = Path(scratch) / ARTIFACT_FOLDER
        draft.mkdir()
        report = gather(store, chosen, comparison, draft, question=question, vector=vector)
        page = write_html(report, draft)
        markdown = write_markdown(report, draft)
        if vector:
            (draft / "table.tex").write_text(as_latex(comparison), "utf-8")
        own_run = chosen.own_run if unusable(store.uri) is None else None
        if own_run is not None:
            store.add_artifacts(own_run, Path(scratch))
        try:
            shutil.copytree(draft, folder, dirs_exist_ok=True)
        except OSError as error:
            raise UsageError(f"-o {folder}: it cannot be written: {error}") from None
    return Written(folder / page.name, folder / markdown.name, own_run.short_id if own_run else None)
