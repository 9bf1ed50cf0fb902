"""How a command's work on a sweep has ended, where trials may be left."""

import dataclasses

from digitlab.sweep.ending.stop_rule import StopRule


@dataclasses.dataclass(frozen=True, slots=True)
class End:
    """note: what the table of trials does not say; may be empty.

    is_stopped: trials are left that the same command goes on with.
    """

    note: str = ""
    is_stopped: bool = False


def end_of(stop_rule: StopRule, *, total: int, num_ended: int, resume_command: str) -> End:
    """Of a sweep that nobody interrupted. total: of the trials that it has if nothing stops it."""
    left = total - num_ended
    if stop_rule.is_reached:
        reason = stop_rule.reason()
        rest = f": {left} of {total} trials were not started (without sweep.target they run)"
        return End(f"{reason}{rest if left else ''}.")
    if left and (reason := stop_rule.reason()):
        return End(
            f"Stopped: {reason}, and {left} of {total} trials are left; to go on: {resume_command}",
            is_stopped=True,
        )
    return End("" if left else stop_rule.shortfall())
