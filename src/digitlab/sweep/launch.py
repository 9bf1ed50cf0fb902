"""One invocation of a sweep from its plan to its summary: the one place where its parts meet."""

import contextlib
import dataclasses
import shutil
import time
from collections.abc import Sequence

from digitlab.config import project
from digitlab.errors import DigitlabError, Interrupted, TrackingError
from digitlab.results.trial_result import TrialResult
from digitlab.runs.interrupts import Interrupts
from digitlab.runs.provenance import unreadable_checkout
from digitlab.sweep import parent_run
from digitlab.sweep.dry_run import dry_run
from digitlab.sweep.finished import (
    Reasons,
    belongs,
    finished_runs,
    result_of,
    reusable,
    with_history,
)
from digitlab.sweep.manifest import Manifest, SweepFolder, Trial, new_id, newest_of
from digitlab.sweep.planning.engines import plan_chunks
from digitlab.sweep.planning.plan import verify_data
from digitlab.sweep.presets import check_preset, write_preset
from digitlab.sweep.settings import ProcessesSettings
from digitlab.sweep.workers.display import SweepDisplay, counts, in_words
from digitlab.sweep.workers.executors import warm_up
from digitlab.sweep.workers.runner import Listed, Policy, Runner, Source, earlier_results, num_workers
from digitlab.text.terminal import echo, say
from digitlab.tracking.connection.location import undeliverable
from digitlab.tracking.delivery import Delivery, bounded_store, check_before_training
from digitlab.tracking.names import CHOSEN, ERROR_TAG, MANIFEST_FILE, SWEEP_TAG, TRIAL_TAG
from digitlab.tracking.run_folder import RunFolder, Status, all_records, waiting_records


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line asks for besides the sweep itself."""

    dry_run: bool = False
    rerun: bool = False
    fail_fast: bool = False
    retries: int = 0
    save_best: str | None = None


def launch(planned: Manifest, options: Options) -> list[TrialResult]:
    """Finish the sweep that was planned: a new one, or what is left of an earlier one.

    Returns the results of all trials that have ended, now or earlier.

    Raises:
        Interrupted: the sweep was stopped and can be repeated.
    """
    if options.save_best:
        check_preset(options.save_best)
    if options.dry_run:
        dry_run(planned, rerun=options.rerun)
        return []
    check_before_training(planned.tracking_uri, planned.study)
    if reason := unreadable_checkout():
        say(reason)
    with Interrupts() as interrupts, interrupts.deferred():
        folder, manifest = _claim(planned, options)
        try:
            return _work(folder, manifest, options, interrupts)
        finally:
            folder.release()


def _claim(planned: Manifest, options: Options) -> tuple[SweepFolder, Manifest]:
    """The sweep's folder, owned, with its frozen manifest; the settings of execution are today's."""
    sweeps = project.sweeps()
    known = None if options.rerun else newest_of(sweeps, planned.key)
    if known:
        known.own()
        executor, engine = planned.settings.executor, planned.settings.engine
        frozen = _mended(known, planned)
        settings = dataclasses.replace(frozen.settings, executor=executor, engine=engine)
        return known, dataclasses.replace(frozen, settings=settings)
    manifest = dataclasses.replace(planned, id=new_id(sweeps, planned.key))
    folder = SweepFolder(sweeps / manifest.id)
    folder.folder.mkdir(parents=True, exist_ok=True)
    folder.own()
    folder.freeze(manifest)
    folder.log("planned", command=manifest.command)
    return folder, manifest


def _mended(folder: SweepFolder, planned: Manifest) -> Manifest:
    """As it was frozen. A damaged manifest is frozen anew: what has the same key is the same."""
    if num_lines := folder.mend():
        say(
            f"{num_lines} damaged lines of its journal were set aside (journal.jsonl.damaged in "
            f"{folder.folder}): what they told is found in the store, or done again"
        )
    try:
        return folder.manifest()
    except DigitlabError:
        frozen = dataclasses.replace(planned, id=folder.id)
        file = folder.folder / MANIFEST_FILE
        say(f"{file} was damaged: it is made anew, and kept as {file.name}.damaged")
        shutil.copyfile(file, file.with_suffix(".json.damaged"))
        folder.freeze(frozen)
        return frozen


def _work(
    folder: SweepFolder, manifest: Manifest, options: Options, interrupts: Interrupts
) -> list[TrialResult]:
    started = time.monotonic()
    results, pending, source, engine = _what_is_left(folder, manifest, options)
    num_trials = len(results) + pending
    plural = "s" * (num_trials != 1)
    where = f"sweep {manifest.id} {manifest.name!r}: {num_trials} trial{plural}"
    if not pending and _has_ended(folder):
        echo(f"{where}, all ended before: {_counted(results)}")
        _conclude(folder, manifest, results, options)
        return results
    check_before_training(manifest.tracking_uri, manifest.study, _records_of(manifest))
    verify_data(manifest)
    if isinstance(manifest.settings.executor, ProcessesSettings):
        warm_up()
    metric = CHOSEN[manifest.settings.sweep.metric]
    display = SweepDisplay(num_trials, len(results), metric)
    _announce(where, len(results), engine)
    own = parent_run.ParentRun(manifest, say)
    status: Status = "KILLED"
    tags = {}
    try:
        link = own.start()
        if link:
            say(f"watch it: {link}" + ("" if own.is_on_server else "  (while `digitlab ui` runs)"))
        _adopt(manifest, results, own)
        folder.log("working", pending=pending, reused=sum(r.reused for r in results))
        runner = Runner(
            folder,
            manifest,
            source,
            policy=Policy(fail_fast=options.fail_fast, retries=options.retries),
            display=display,
            interrupts=interrupts,
            say=say,
        )
        try:
            runner.run()
        finally:
            known = [*results, *source.results, *runner.results]
            ended = {r.number: r for r in known if r.state != "INTERRUPTED"}
            results = [ended[number] for number in sorted(ended)]
        run_ids = _deliver_ended(manifest)
        results = [dataclasses.replace(r, run_id=run_ids.get(r.number, r.run_id)) for r in results]
        _adopt(manifest, source.results, own)
        status = "FAILED" if any(result.state == "FAILED" for result in results) else "FINISHED"
        if options.fail_fast and status == "FAILED":
            tags[ERROR_TAG] = "stopped at the first failure"
    except Interrupted as error:
        tags[ERROR_TAG] = str(error)
        say(f"stopped after {_counted(results)}; to go on: {parent_run.resume_command(manifest)}")
        raise
    finally:
        if status != "KILLED":
            tags |= _summarised(own, results, folder)
        own.finish(status, tags)
        if status != "KILLED":
            folder.log("finished", status=status)
    say(f"{_counted(results)} in {in_words(time.monotonic() - started)}")
    _conclude(folder, manifest, results, options)
    if link:
        say(f"look at it: {link}" + ("" if own.is_on_server else "  (while `digitlab ui` runs)"))
    if own.run_id:
        say(f"its table and pictures: digitlab show {own.run_id[:8]}")
    return results


def _announce(sweep: str, num_ended: int, engine: str) -> None:
    say(f"{sweep}, {num_ended} of them ended before" if num_ended else sweep)
    if engine:
        say(f"engine: {engine}")


def _what_is_left(
    folder: SweepFolder, manifest: Manifest, options: Options
) -> tuple[list[TrialResult], int, Source, str]:
    """Results that stand, the number of trials still to run, where those come from, and how they are
    trained, if anybody wants to know."""
    _deliver_ended(manifest)
    earlier = earlier_results(folder)
    if manifest.is_search:
        from digitlab.sweep.search import Search

        search = Search(folder, manifest, say=say, num_workers=num_workers(manifest))
        return search.results, search.num_left, search, ""
    runs = [] if options.rerun else finished_runs(manifest.study, manifest.tracking_uri)
    reused = reusable(manifest, runs)
    results: list[TrialResult] = []
    pending: list[Trial] = []
    for trial in manifest.trials:
        before = earlier.get(trial.number)
        if trial.number in reused:
            run = reused[trial.number]
            if before and before.run_id == run.run_id and before.state == "FINISHED":
                results.append(before)
            elif belongs(run, manifest.id):
                results.append(with_history(trial, run, manifest))
            else:
                results.append(result_of(trial, run))
        elif before and before.state == "FAILED" and before.is_final:
            results.append(before)
        else:
            pending.append(trial)
    if reason := Reasons(manifest, runs).why_again(pending):
        say(reason)
    plan = plan_chunks(pending, manifest.settings.engine, num_workers(manifest))
    is_told = manifest.settings.engine.name == "fused" or len(plan.chunks) < len(pending)
    return results, len(pending), Listed(plan.chunks), plan.describe() if is_told else ""


def _deliver_ended(manifest: Manifest) -> dict[int, str]:
    """Deliver trials that have ended and are not in the store: their process was killed on the way, or
    the store took too long. Stops at the first that it does not take. Returns run ids by trial."""
    run_ids: dict[int, str] = {}
    if undeliverable(manifest.tracking_uri):
        return run_ids
    for record in waiting_records(project.records()):
        is_ours = record.run.tags.get(SWEEP_TAG) == manifest.id
        if not is_ours or record.run.status not in ("FINISHED", "FAILED") or not record.try_to_own():
            continue
        is_delivered = Delivery(record, say).finish()
        record.release()
        if not is_delivered:
            break
        if record.delivered.run_id:
            run_ids[int(record.run.tags[TRIAL_TAG])] = record.delivered.run_id
    return run_ids


def _records_of(manifest: Manifest) -> list[RunFolder]:
    """Of what can go on: the sweep's own and those of trials that were cut short."""
    own = parent_run.record_id(manifest)
    found = all_records(project.records())
    return [r for r in found if r.run.record_id == own or r.run.parent == own]


def _has_ended(folder: SweepFolder) -> bool:
    """Whether the last thing that happened was the end of the whole sweep."""
    events = [event["event"] for event in folder.events()]
    return bool(events) and events[-1] == "finished"


def _adopt(manifest: Manifest, results: Sequence[TrialResult], own: parent_run.ParentRun) -> None:
    """Let the sweep's view show the runs that other sweeps have made, too."""
    if own.run_id is None:
        return
    store = bounded_store(manifest.tracking_uri)
    with contextlib.suppress(TrackingError):  # the view shows less then; no trial is lost
        for result in results:
            if result.reused and result.run_id:
                run = store.find(result.run_id)
                if not belongs(run, manifest.id):
                    sweeps = f"{run.tags.get(SWEEP_TAG, '')} {manifest.id}".strip()
                    store.set_tag(result.run_id, SWEEP_TAG, sweeps)


def _conclude(
    folder: SweepFolder, manifest: Manifest, results: Sequence[TrialResult], options: Options
) -> None:
    """The table, every failure with its first cause, and the preset that was asked for."""
    from digitlab.results.summary import print_summary

    print_summary(results, manifest.settings.sweep.metric)
    failed = [result for result in results if result.state == "FAILED"]
    for result in failed:
        say(f"trial {result.number} ({result.name}) failed: {(result.error or '').splitlines()[0]}")
        if result.traceback:
            say(f"  traceback: {result.traceback}")
    if options.save_best:
        echo(write_preset(options.save_best, folder, manifest, results))


def _summarised(
    own: parent_run.ParentRun, results: Sequence[TrialResult], folder: SweepFolder
) -> dict[str, str]:
    """Draw and write the summary; whatever is wrong with a picture is no fault of the trials."""
    step = sum(event["event"] == "working" for event in folder.events())
    try:
        _draw_best(own.manifest, results)
        return own.summarise(results, step)
    except Exception as error:
        say(f"the summary is incomplete: {type(error).__name__}: {error}")
        return {}


def _draw_best(manifest: Manifest, results: Sequence[TrialResult]) -> None:
    """The pictures of the best run; `digitlab show RUN --plots` draws those of any other."""
    from digitlab.results.summary import rank

    ranked = rank(results, manifest.settings.sweep.metric)
    run_id = ranked[0].trials[0].run_id if ranked else None
    if run_id is None or undeliverable(manifest.tracking_uri):
        return
    store = bounded_store(manifest.tracking_uri)
    run = store.find(run_id)
    if run.params["record.plots"] != "never":
        from digitlab.runs.pictures import draw_missing

        root = run.params["data.root"]  # of this command, or of the one that it finishes
        draw_missing(store, run, None if root == "null" else root)


def _counted(results: Sequence[TrialResult]) -> str:
    found = counts(results)
    names = {"FINISHED": "finished", "PRUNED": "pruned", "FAILED": "failed"}
    return ", ".join(f"{found[k]} {name}" for k, name in names.items() if k in found) or "0 finished"
