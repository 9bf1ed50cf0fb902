"""One invocation of a sweep from its plan to its summary: the one place where its parts meet."""

import dataclasses
import time
from collections import Counter
from collections.abc import Sequence

from digitlab.config import project
from digitlab.errors import Interrupted
from digitlab.results.summary import Summary, summarise
from digitlab.results.trial_result import State, TrialResult
from digitlab.runs.interrupts import Interrupts
from digitlab.runs.provenance import unreadable_checkout
from digitlab.sweep import parent_run
from digitlab.sweep.ending.end import End, end_of
from digitlab.sweep.ending.goal import Goal
from digitlab.sweep.ending.notice import EndStatus, Notice, send
from digitlab.sweep.ending.stop_rule import StopRule, TimeLimit
from digitlab.sweep.left import Left, what_is_left
from digitlab.sweep.manifest import Manifest
from digitlab.sweep.planning.plan import verify_data
from digitlab.sweep.presets import check_preset, write_preset
from digitlab.sweep.search import num_trials
from digitlab.sweep.sweep_folder import SweepFolder, claim
from digitlab.sweep.workers.display import SweepDisplay, in_words
from digitlab.sweep.workers.runner import Runner
from digitlab.text.addresses import redacted
from digitlab.text.terminal import say
from digitlab.tracking.connection.location import undeliverable
from digitlab.tracking.delivery import Delivery, bounded_store, check_before_training
from digitlab.tracking.names import CHOSEN, ERROR_TAG, SWEEP_TAG, TRIAL_TAG
from digitlab.tracking.run_folder import RunFolder, Status, all_records, waiting_records


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What is asked for besides the sweep itself."""

    rerun: bool = False
    fail_fast: bool = False
    retries: int = 0
    save_best: str | None = None
    limit: TimeLimit | None = None
    notify: str | None = None  # an address to tell of the end


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Launched:
    """A sweep that has ended, and what came of it.

    before: says that all of its trials had ended before; empty if any was left. saved: says where the
    best was written to, if that was asked for. notes: where to look at it, a line each.
    """

    manifest: Manifest
    summary: Summary
    before: str = ""
    saved: str = ""
    notes: tuple[str, ...] = ()


def launch(planned: Manifest, options: Options, interrupts: Interrupts) -> Launched:
    """Finish the sweep that was planned: a new one, or what is left of an earlier one.

    Its summary is of all trials that have ended, now or earlier.

    Raises:
        Interrupted: the sweep was stopped and can be repeated.
    """
    began = time.monotonic()
    if options.save_best:
        check_preset(options.save_best)
    check_before_training(planned.tracking_uri, planned.study)
    if reason := unreadable_checkout():
        say(reason)
    with interrupts.deferred():
        folder, manifest = claim(planned, rerun=options.rerun, say=say)
        try:
            _deliver_ended(manifest)
            rule = StopRule(options.limit, Goal(manifest))
            left = what_is_left(folder, manifest, rule, rerun=options.rerun)
            try:
                done = _work(folder, manifest, left, options, interrupts)
            except (Interrupted, Exception) as error:
                _notify(options, folder, manifest, _by_journal(folder, manifest, left), began, error)
                raise
            _notify(options, folder, manifest, done.summary, began)
            return done
        finally:
            folder.release()


def _work(
    folder: SweepFolder, manifest: Manifest, left: Left, options: Options, interrupts: Interrupts
) -> Launched:
    """Do what is left, if anything is."""
    count = f"{left.num_trials} trial{'s' * (left.num_trials != 1)}"
    where = f"sweep {manifest.id} {manifest.name!r}: {count}"
    ended, notes = "", tuple[str, ...]()
    if not left.num_pending and folder.has_ended():
        ended = f"{where}, all ended before: {_counted(left.results)}"
        summary = summarise(left.results, manifest.settings.sweep.metric)
        summary = _with_note(summary, _end_of(folder, manifest, left, len(left.results)))
    else:
        check_before_training(manifest.tracking_uri, manifest.study, _records_of(manifest))
        verify_data(manifest, say)
        say(f"{where}, {len(left.results)} of them ended before" if left.results else where)
        summary, notes = _run(folder, manifest, left, options, interrupts)
    _say_failures(summary)
    saved = write_preset(options.save_best, folder, manifest, summary) if options.save_best else ""
    return Launched(manifest=manifest, summary=summary, before=ended, saved=saved, notes=notes)


def _notify(
    options: Options,
    folder: SweepFolder,
    manifest: Manifest,
    summary: Summary,
    began: float,
    error: BaseException | None = None,
) -> None:
    """Tell whoever is to be told that work on the sweep has ended; began: on the monotonic clock."""
    if options.notify is None:
        return
    status: EndStatus = "stopped" if folder.is_stopped() else "finished"
    if isinstance(error, Interrupted):
        status = "interrupted"
    elif error or any(result.state == "FAILED" for result in summary.results):
        status = "failed"
    notice = Notice(
        manifest=manifest,
        summary=summary,
        status=status,
        num_trials=num_trials(folder, manifest),
        seconds=time.monotonic() - began,
        error=redacted(str(error)) if error else None,
    )
    send(options.notify, notice, say)


def _by_journal(folder: SweepFolder, manifest: Manifest, left: Left) -> Summary:
    """What had come of the sweep when it was interrupted or failed as a whole."""
    results = {result.number: result for result in left.results} | folder.results()
    ended = [result for result in results.values() if result.state != "INTERRUPTED"]
    return summarise(ended, manifest.settings.sweep.metric)


def _run(
    folder: SweepFolder, manifest: Manifest, left: Left, options: Options, interrupts: Interrupts
) -> tuple[Summary, tuple[str, ...]]:
    """Train what is left, under the sweep's own run; what came of it, and where to look at that."""
    started, metric = time.monotonic(), manifest.settings.sweep.metric
    left.executor.prepare()
    if left.engine:
        say(f"engine: {left.engine}")
    runner = Runner(
        folder,
        manifest,
        left.source,
        left.executor,
        under_way=left.under_way,
        fail_fast=options.fail_fast,
        retries=options.retries,
        stop_rule=left.stop_rule,
        display=SweepDisplay(left.num_trials, len(left.results), CHOSEN[metric]),
        interrupts=interrupts,
        say=say,
    )
    with parent_run.ParentRun(manifest, say) as own:
        folder.log("working", pending=left.num_pending, reused=sum(r.reused for r in left.results))
        try:
            with runner:
                own.start()
                if own.link:
                    say(f"watch it: {own.link}")
                own.adopt(left.results)
                runner.run()
        except Interrupted:
            counted = _counted(_ended(left, runner))
            say(f"stopped after {counted}; to go on: {parent_run.resume_command(manifest)}")
            raise
        summary = summarise(_ended(left, runner), metric)
        with runner.delivering(first=summary.best):
            _draw(own, summary)
            if summary.best:
                _draw_best(manifest, runner.run_ids.get(summary.best.number))
        run_ids = {**runner.run_ids, **_deliver_ended(manifest)}
        own.adopt(left.source.results)
        results = _ended(left, runner)
        results = [dataclasses.replace(r, run_id=run_ids.get(r.number, r.run_id)) for r in results]
        summary = summarise(results, metric)
        end = _end_of(folder, manifest, left, len(results))
        summary = _with_note(summary, end)
        if left.stop_rule.is_reached:
            folder.log("reached", trials=len(results))
        _finish(own, folder, manifest, summary, options, end)
    say(f"{_counted(results)} in {in_words(time.monotonic() - started)}")
    notes = [f"look at it: {own.link}"] if own.link else []
    notes += [f"its table and pictures: digitlab show {own.run_id[:8]}"] if own.run_id else []
    return summary, tuple(notes)


def _ended(left: Left, runner: Runner) -> list[TrialResult]:
    """Every trial that has ended, now or earlier, by number."""
    results = [*left.results, *left.source.results, *runner.results]
    ended = {result.number: result for result in results if result.state != "INTERRUPTED"}
    return [ended[number] for number in sorted(ended)]


def _end_of(folder: SweepFolder, manifest: Manifest, left: Left, num_ended: int) -> End:
    return end_of(
        left.stop_rule,
        total=num_trials(folder, manifest),
        num_ended=num_ended,
        resume_command=parent_run.resume_command(manifest),
    )


def _with_note(summary: Summary, end: End) -> Summary:
    return dataclasses.replace(summary, notes=[*summary.notes, *filter(None, [end.note])])


def _draw(own: parent_run.ParentRun, summary: Summary) -> None:
    """A picture that cannot be drawn changes nothing."""
    try:
        own.draw(summary)
    except Exception as error:
        say(f"pictures are missing: {type(error).__name__}: {error}")


def _finish(
    own: parent_run.ParentRun,
    folder: SweepFolder,
    manifest: Manifest,
    summary: Summary,
    options: Options,
    end: End,
) -> None:
    """End the sweep's own run as its trials did; if it was stopped, as one that can go on.

    A table that cannot be written changes nothing.
    """
    has_failed = any(result.state == "FAILED" for result in summary.results)
    status: Status = "FAILED" if has_failed else "KILLED" if end.is_stopped else "FINISHED"
    tags = {ERROR_TAG: end.note} if end.is_stopped else {}
    if options.fail_fast and has_failed:
        tags[ERROR_TAG] = "stopped at the first failure"
    try:
        _draw_best(manifest, summary.best.run_id if summary.best else None)
        tags |= own.summarise(summary, folder.num_invocations())
    except Exception as error:
        say(f"the summary is incomplete: {type(error).__name__}: {error}")
    own.finish(status, tags)
    folder.log("stopped" if end.is_stopped else "finished", status=status)


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
    records = all_records(project.records())
    return [r for r in records if r.run.record_id == own or r.run.parent == own]


def _say_failures(summary: Summary) -> None:
    """Every one with its first cause."""
    for result in summary.results:
        if result.state == "FAILED":
            cause = (result.error or "").splitlines()[0]
            say(f"trial {result.number} ({result.name}) failed: {cause}")
            if result.traceback:
                say(f"  traceback: {result.traceback}")


def _draw_best(manifest: Manifest, run_id: str | None) -> None:
    """The pictures of the best run that it lacks; `digitlab show RUN --plots` draws those of any other.

    run_id: None as long as the store does not have it.
    """
    if run_id is None or undeliverable(manifest.tracking_uri):
        return
    store = bounded_store(manifest.tracking_uri)
    run = store.find(run_id)
    if run.params["record.plots"] != "never":
        from digitlab.runs.pictures import draw_missing

        root = run.params.get("data.root", "null")  # of this command, or of the one that it finishes
        draw_missing(store, run, None if root == "null" else root)


def _counted(results: Sequence[TrialResult]) -> str:
    """`12 finished, 1 failed`."""
    count = Counter(result.state for result in results)
    names: dict[State, str] = {"FINISHED": "finished", "PRUNED": "pruned", "FAILED": "failed"}
    return ", ".join(f"{count[k]} {name}" for k, name in names.items() if count[k]) or "0 finished"
