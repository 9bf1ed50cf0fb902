"""Shows a run of `make bench-peers` in docs/performance.md and README.md.

python -m tests.benchmarks.peers.publish mlruns/peers: copies results.json, profile.json (of
tests/benchmarks/peers/profile.py) and the charts to docs/performance/, and writes what lies between the
marks of both pages anew.
"""

import json
import shutil
import sys
from pathlib import Path

from tests.benchmarks.peers import charts, summary
from tests.benchmarks.processes import CHECKOUT

PAGE, README = CHECKOUT / "docs" / "performance.md", CHECKOUT / "README.md"
PUBLISHED = CHECKOUT / "docs" / "performance"
JSON = ("results.json", "profile.json")
BEGIN, END = "<!-- measured -->", "<!-- /measured -->"


def main() -> None:
    source = Path(sys.argv[1])
    results, profile = (json.loads((source / name).read_text()) for name in JSON)
    if results["small"]:
        sys.exit("a run with --small measures nothing: run without it")
    PUBLISHED.mkdir(exist_ok=True)
    for name in (*JSON, charts.TRIALS, charts.ACCURACIES):
        shutil.copyfile(source / name, PUBLISHED / name)
    for page, text in ((PAGE, page_text(results, profile)), (README, readme_text(results))):
        page.write_text(filled(page.read_text(), text))


def page_text(results: summary.Results, profile: summary.Results) -> str:
    """Machine, versions, tables, and what the seconds are spent on."""
    spent = [summary.profile_table(profile), summary.limit(profile)]
    return "\n\n".join([summary.notes(results), *summary.tables(results), *spent])


def readme_text(results: summary.Results) -> str:
    """The three lines of the README, by the table of targets."""
    further, end_to_end, _, _, cnn, *_ = (value for _, value, *_ in summary.targets(results))
    assert None not in (further, end_to_end, cnn), (
        "the README needs trials and CNNs of digitlab and peers"
    )
    return (
        "Against what a careful user picks instead (tensors in memory, a plain loop, Optuna with\n"
        "MLflow in two processes), digitlab trains and records each further logistic regression\n"
        f"{further:.1f} times as fast, a sweep of 64 {end_to_end:.1f} times, 16 CNNs {cnn:.1f} times."
    )


def filled(page: str, text: str) -> str:
    """The page with `text` between its marks."""
    before, _, rest = page.partition(BEGIN)
    _, mark, after = rest.partition(END)
    assert mark, f"the page has no {BEGIN} ... {END}"
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


if __name__ == "__main__":
    main()
