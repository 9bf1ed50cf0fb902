"""A run in a fresh process: `python -m digitlab.reproduction.repeating`, asked over standard input.

It answers what it would run and runs it when told to go; every message is a line of JSON. Its
environment is chosen by the process that starts it, since arithmetic is fixed before anything is
computed. A later digitlab may talk to the recorded code of today: these messages must not change.

    asked      {"document": ..., "changes": {knob: value}, "tags": {...}, "tracking_uri": ...,
                "command": ...}
    described  {"event": "described", "document": ...}
    asked      "go" or nothing
    ended      {"event": "ended", "run_id": ..., "record_id": ..., "document": ...}
    refused    {"event": "refused", "exit_code": ..., "message": ...}
"""

import json
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

from digitlab.errors import DigitlabError, Interrupted, machine_refusal
from digitlab.runs import document as documents
from digitlab.text.terminal import say

if TYPE_CHECKING:
    from digitlab.runs.interrupts import Interrupts


def main() -> int:
    asked = json.loads(sys.stdin.readline())
    try:
        return _repeat(asked)
    except DigitlabError as error:
        _say({"event": "refused", "exit_code": error.exit_code, "message": str(error)})
        return error.exit_code
    except Interrupted as error:
        return error.exit_code
    except Exception as error:
        if (refusal := machine_refusal(error)) is None:
            raise
        _say({"event": "refused", "exit_code": 1, "message": refusal})
        return 1


def _repeat(asked: dict[str, Any]) -> int:
    recorded = documents.parse(json.dumps(asked["document"]).encode())
    changes = {"tracking.uri": asked["tracking_uri"], **asked["changes"]}
    config = recorded.checked_config(changes)

    from digitlab.runs.describe import request_run
    from digitlab.runs.experiment import Session, run_experiment
    from digitlab.runs.interrupts import Interrupts
    from digitlab.runs.progress import TrainingProgress

    request = request_run(config, say=say, command=asked["command"], tags=asked["tags"])
    _say({"event": "described", "document": documents.to_plain(request.document)})
    if sys.stdin.readline().strip() != "go":
        return 0
    with Interrupts() as interrupts:
        threading.Thread(target=_stop_with_asker, args=(interrupts,), daemon=True).start()
        outcome = run_experiment(request, Session(interrupts, say, TrainingProgress()))
    _say(
        {
            "event": "ended",
            "run_id": outcome.run_id,
            "record_id": outcome.record_id,
            "document": documents.to_plain(outcome.document),
        }
    )
    return 0


def _stop_with_asker(interrupts: "Interrupts") -> None:
    """The asking process keeps standard input open for as long as it waits for the end."""
    sys.stdin.read()
    interrupts.request(signal.SIGTERM)


def _say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
