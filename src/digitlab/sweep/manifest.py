"""A sweep as it is frozen before its first trial starts: settings, and every trial's configuration.

Nothing here reads conf/. Knows neither Hydra nor MLflow nor torch.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from digitlab.config import project
from digitlab.config.checking import recorded_config
from digitlab.config.schema import Config
from digitlab.results.trial_result import State, TrialResult
from digitlab.sweep.settings import Settings, to_settings, to_values
from digitlab.text.addresses import keep_secrets
from digitlab.text.formats import KEY, Format, Values


def _with_target(values: Values) -> Values:
    """Version 2: a sweep may have a target, and a search knobs that some of its groups lack."""
    settings = values["settings"]
    return values | {"settings": settings | {"sweep": {"target": None} | settings["sweep"]}}


FORMAT = Format(upgrades={1: _with_target})
BEFORE_ENGINES = {"engine": {"name": "sequential"}}  # for manifests that have none


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One configuration of a sweep. swept: the knobs that vary, as typed. point: see TrialResult."""

    number: int
    point: int
    name: str
    swept: dict[str, str]
    values: dict[str, Any]
    fingerprint: str

    def config(self) -> Config:
        return recorded_config(self.values)

    def result(self, state: State, **details: Any) -> TrialResult:
        """What came of it. details: the other fields of TrialResult."""
        return TrialResult(
            number=self.number,
            point=self.point,
            name=self.name,
            swept=self.swept,
            state=state,
            **details,
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """One choice of groups of a search, composed: values are laid over it without reading conf/.

    lacks: knobs that the search chooses elsewhere and that do not exist here: `model.channels_1`, which
    only a CNN has.
    """

    groups: dict[str, str]
    values: dict[str, Any]
    lacks: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(slots=True, kw_only=True)
class Manifest:
    """Everything that is needed to finish a sweep. trials: empty for a search, which makes its own.

    key: hash of what would be run; the same command finds its sweep by it.
    """

    id: str
    key: str
    name: str
    study: str
    command: str
    created: int
    device: str
    settings: Settings
    tracking_uri: str
    trials: list[Trial]
    axes: dict[str, Any] = dataclasses.field(default_factory=dict)
    bases: list[Base] = dataclasses.field(default_factory=list)

    @property
    def is_search(self) -> bool:
        return self.settings.sweep.search != "grid"

    @property
    def num_trials(self) -> int:
        """Of a search: that it will have made at its end."""
        if not self.is_search:
            return len(self.trials)
        return (self.settings.sweep.trials or 0) * self.settings.sweep.repeats

    def base_of(self, point: Mapping[str, str]) -> Base:
        """Of a search: what a point with these groups is laid over."""
        groups = {knob: point[knob] for knob in self.bases[0].groups}
        return next(base for base in self.bases if base.groups == groups)

    def executed_like(self, other: "Manifest") -> "Manifest":
        """With the executor and engine of another: how a sweep is executed is not frozen."""
        executor, engine = other.settings.executor, other.settings.engine
        settings = dataclasses.replace(self.settings, executor=executor, engine=engine)
        return dataclasses.replace(self, settings=settings)

    def to_json(self, mlruns: Path) -> dict[str, Any]:
        """As it is kept in a sweep's folder below `mlruns`, which may be moved with its store."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return FORMAT.numbered(values) | {
            "tracking_uri": project.portable_uri(self.tracking_uri, mlruns),
            "settings": to_values(self.settings),
            "trials": [dataclasses.asdict(trial) for trial in self.trials],
            "bases": [dataclasses.asdict(base) for base in self.bases],
        }

    @classmethod
    def from_json(cls, values: object, mlruns: Path) -> Self:
        """Raises LaterFormat; ValueError, LookupError, TypeError or UsageError if it is damaged."""
        values = FORMAT.upgraded(values)
        del values[KEY]
        known = BEFORE_ENGINES | values.pop("settings")
        known["engine"].pop("exact", None)  # in old manifests
        uri = keep_secrets(values.pop("tracking_uri"))  # in old manifests
        return cls(
            settings=to_settings(known),
            trials=[Trial(**trial) for trial in values.pop("trials")],
            bases=[Base(**base) for base in values.pop("bases")],
            tracking_uri=project.present_uri(uri, mlruns),
            **values,
        )
