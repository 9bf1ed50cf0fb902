"""Which runs are meant: conditions on knobs, metrics, tags and what else a run has, read from text.

A run is judged here, so that one that is not delivered yet is found alike, and knobs, which MLflow
holds as text, compare as numbers. What MLflow tells exactly is left to it beforehand: it sends fewer.
"""

import dataclasses
import datetime
import fnmatch
import json
import operator
import re
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from digitlab.config.checking import from_param
from digitlab.config.knobs import knobs, nearest
from digitlab.errors import UsageError
from digitlab.tracking import names
from digitlab.tracking.stored_run import StoredRun

OPERATORS = ("=", "!=", ">", ">=", "<", "<=", "LIKE", "ILIKE")
ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
METRICS = (
    *(names.TRAIN_LOSS, names.TRAIN_ACCURACY, names.VALIDATION_LOSS, names.VALIDATION_ACCURACY),
    *(names.LEARNING_RATE, names.EPOCH_SECONDS, names.IMAGES_PER_SECOND),
    *(names.CHOSEN_EPOCH, names.CHOSEN_LOSS, names.CHOSEN_ACCURACY),
    *(names.TEST_LOSS, names.TEST_ACCURACY, names.MACRO_F1, names.CALIBRATION_ERROR),
)
OF_A_RUN: dict[str, Callable[[StoredRun], Any]] = {
    "status": lambda run: run.state,
    "name": lambda run: run.name,
    "study": lambda run: run.study,
    "run_id": lambda run: run.run_id,
    "start_time": lambda run: run.start_time,
    "seconds": lambda run: run.seconds,
}
IN_MLFLOW = {"name": "attributes.run_name", "start_time": "attributes.start_time"}
SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}
SMALL_IS_GOOD = ("loss", "error", "seconds")  # the last word of a metric that is best when it is small

_CONDITION = re.compile(
    r"""\s*(?:`(?P<ticked>[^`]+)`|(?P<name>[\w.@/-]+))
    \s*(?P<operator>>=|<=|!=|==|=|>|<|\s(?:I?LIKE)\s)
    \s*(?:'(?P<single>[^']*)'|"(?P<double>[^"]*)"|(?P<bare>[^\s'"]+))
    \s*(?P<rest>$|\sAND\s)""",
    re.IGNORECASE | re.VERBOSE,
)


@dataclasses.dataclass(frozen=True, slots=True)
class Condition:
    """`NAME OPERATOR VALUE`; operator: one of OPERATORS. It does not hold of a run that has no NAME."""

    name: str
    operator: str
    value: str

    def holds(self, run: StoredRun) -> bool:
        if self.name == names.SWEEP_TAG:  # the ids of all sweeps that it belongs to
            return self.operator == "=" and self.value in run.tags.get(self.name, "").split()
        found = value_of(run, self.name)
        if found is None:
            return False
        if self.operator in ORDERS:
            asked = _parsed(self.value)
            return _is_number(found) and ORDERS[self.operator](found, asked)
        if self.operator in ("LIKE", "ILIKE"):
            return _is_like(str(found), self.value, heeds_case=self.operator == "LIKE")
        is_equal = found in (self.value, _parsed(self.value))
        return found == found and is_equal == (self.operator == "=")  # NaN is equal to no number

    def in_mlflow(self) -> str:
        """A filter in MLflow's syntax that lets pass at least what this one does; "" for none."""
        if re.search(r"['\"`\\]", self.name + self.value):
            return ""
        knob = None if self.name in OF_A_RUN else knobs().get(self.name)
        number = _parsed(self.value)
        if self.name == names.SWEEP_TAG:
            return f"tags.`{self.name}` LIKE '%{self.value}%'"
        if self.name == "status" and self.operator == "=":
            return f"attributes.status = '{'KILLED' if self.value == 'PRUNED' else self.value}'"
        if self.name == "start_time" and isinstance(number, int):
            return f"attributes.start_time {self.operator} {self.value}"
        if self.name == "name":
            return f"attributes.run_name {self.operator} '{self.value}'"
        if self.name in METRICS and _is_number(number) and self.operator != "!=":
            return f"metrics.`{self.name}` {self.operator} {self.value}"
        if knob and knob.is_text and self.operator == "=":
            return f"params.`{self.name}` = '{self.value}'"
        return ""


@dataclasses.dataclass(frozen=True, slots=True)
class RunFilter:
    """All conditions must hold."""

    conditions: tuple[Condition, ...] = ()

    def matches(self, run: StoredRun) -> bool:
        return all(condition.holds(run) for condition in self.conditions)

    def in_mlflow(self) -> str:
        """See Condition.in_mlflow."""
        return " AND ".join(filter(None, (condition.in_mlflow() for condition in self.conditions)))

    @property
    def is_all_in_mlflow(self) -> bool:
        """Whether hardly any run that MLflow sends is refused here."""
        return all(condition.in_mlflow() for condition in self.conditions)

    def check_names(self, runs: Sequence[StoredRun]) -> None:
        """Raises UsageError for a name that no run has, with the nearest that one has."""
        for condition in self.conditions:
            check_name(condition.name, runs)


EVERYTHING = RunFilter()


def check_name(name: str, runs: Sequence[StoredRun]) -> None:
    """Raises UsageError if it is neither known nor anything that one of the runs has."""
    is_known = name in (*OF_A_RUN, *METRICS, *knobs(), names.SWEEP_TAG) or name.startswith("tags.")
    if is_known or any(value_of(run, name) is not None for run in runs):
        return
    known = dict.fromkeys([*knobs(), *METRICS, *OF_A_RUN])
    for run in runs:
        known |= dict.fromkeys([*run.params, *run.metrics, *run.tags])
    suggestion = nearest(name, known)
    raise UsageError(
        f"no run has {name!r}"
        + (f"; did you mean {suggestion}?" if suggestion else "")
        + ": a condition is of a knob (`optimizer.learning_rate`), a metric (`test/accuracy`), a tag, "
        f"{', '.join(OF_A_RUN)} or sweep"
    )


def value_of(run: StoredRun, name: str) -> Any:
    """Of a knob, metric, tag or one of OF_A_RUN; None if the run has nothing of that name.

    A name may say which it is, as in MLflow: `params.seed`, `metrics.test/loss`, `tags.owner`.
    """
    kind, _, rest = name.partition(".")
    if name in OF_A_RUN:
        return OF_A_RUN[name](run)
    if name in run.params or (kind == "params" and rest in run.params):
        path = name if name in run.params else rest
        value = from_param(path, run.params[path])
        return "null" if value is None else value
    if name in run.metrics or kind == "metrics":
        return run.metrics.get(name if name in run.metrics else rest)
    return run.tags.get(rest if kind == "tags" else name, run.tags.get(f"digitlab.{name}"))


def parse_conditions(text: str) -> list[Condition]:
    """Of `model.name = 'cnn' AND test/accuracy > 0.98`.

    Raises:
        UsageError: what cannot be read, and what can.
    """
    conditions: list[Condition] = []
    place = 0
    while place < len(text) or not conditions:
        match = _CONDITION.match(text, place)
        if match is None:
            raise UsageError(
                "a condition is NAME OPERATOR VALUE, several joined by AND, got "
                f"{text[place:].strip()!r}: the operators are {' '.join(OPERATORS)}, as in "
                "\"model.name = 'cnn' AND test/accuracy > 0.98\""
            )
        name = match["ticked"] or match["name"]
        value = next(match[kind] for kind in ("single", "double", "bare") if match[kind] is not None)
        sign = match["operator"].strip().upper().replace("==", "=")
        conditions.append(_checked(Condition(name, sign, value)))
        place = match.end()
        if match["rest"] and place == len(text):
            raise UsageError(f"a condition is missing behind the last AND of {text!r}")
    return conditions


def _checked(condition: Condition) -> Condition:
    if condition.operator in ORDERS and not _is_number(_parsed(condition.value)):
        raise UsageError(
            f"{condition.name} {condition.operator} needs a number, got {condition.value!r}"
        )
    if condition.name == "status" and condition.value not in names.STATES:
        raise UsageError(f"status must be one of {', '.join(names.STATES)}, got {condition.value!r}")
    if condition.name == names.SWEEP_TAG and condition.operator != "=":
        raise UsageError(f"of a sweep only = can be asked, got {condition.operator}")
    return condition


def status_condition(text: str) -> Condition:
    """Raises UsageError for what is none."""
    return _checked(Condition("status", "=", text.upper()))


def tag_condition(text: str) -> Condition:
    """Of `owner=me`. Raises UsageError."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise UsageError(f"a tag is asked for as NAME=VALUE, got {text!r}")
    return Condition(f"tags.{name}", "=", value)


def start_condition(text: str) -> Condition:
    """Of `2d`, `90min` or a date. Raises UsageError."""
    if match := re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|min|h|d|w)", text.strip()):
        start = time.time() - float(match[1]) * SECONDS[match[2]]
    else:
        try:
            start = datetime.datetime.fromisoformat(text.strip()).timestamp()
        except (ValueError, OverflowError, OSError):
            raise UsageError(
                f"since when is a number of {', '.join(SECONDS)} ago (`2d`, `90min`) or a date "
                f"(`2026-05-31`, `2026-05-31 14:00`), got {text!r}"
            ) from None
    return Condition("start_time", ">=", str(int(start * 1000)))


def ranked(runs: Iterable[StoredRun], key: str) -> list[StoredRun]:
    """By a metric the best first, by anything else the smallest; runs without it last."""
    values = [(value_of(run, key), run) for run in runs]
    known = [(value, run) for value, run in values if value is not None and value == value]
    numbers = [(value, run) for value, run in known if _is_number(value)]
    others = [(value, run) for value, run in known if not _is_number(value)]
    numbers.sort(key=lambda pair: pair[0], reverse=is_best_when_large(key))
    others.sort(key=lambda pair: str(pair[0]))
    rest = [run for value, run in values if value is None or value != value]
    return [run for _, run in (*numbers, *others)] + rest


def mlflow_order(key: str) -> str:
    """The same order in MLflow's syntax; "" where it has none."""
    name = key.removeprefix("metrics.")
    if name in METRICS:
        return f"metrics.`{name}` {'DESC' if is_best_when_large(name) else 'ASC'}"
    return ""


def is_best_when_large(key: str) -> bool:
    """Of a metric whether large is good; of everything else False."""
    name = key.removeprefix("metrics.")
    return name in METRICS and not name.endswith(SMALL_IS_GOOD)


def _is_like(text: str, pattern: str, *, heeds_case: bool) -> bool:
    """SQL's LIKE: % is any text, _ any one character."""
    shell = "".join(
        {"%": "*", "_": "?"}.get(sign, f"[{sign}]" if sign in "*?[" else sign) for sign in pattern
    )
    if heeds_case:
        return fnmatch.fnmatchcase(text, shell)
    return fnmatch.fnmatchcase(text.lower(), shell.lower())


def _parsed(text: str) -> Any:
    """A number or a boolean where it reads as one."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, int | float) else text


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
