"""The files of conf/, the project's and digitlab's, laid over one another as their defaults lists say.

Sets and checks no knob.
"""

import dataclasses
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.hydra import Hydra
from hydra._internal.sources_registry import SourcesRegistry
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from digitlab.config import project
from digitlab.config.components import lookup
from digitlab.config.knobs import groups, text_knobs
from digitlab.config.overrides import SWEEP_GROUPS, quoted
from digitlab.config.schema import Config
from digitlab.errors import ConfigError
from digitlab.text import yaml_text

Values = dict[str, Any]

_one_at_a_time = threading.RLock()  # Hydra's instance is the process's
NO_PRESET = "experiment=null"  # which Hydra itself does not understand


@contextmanager
def opened_conf() -> Iterator["Conf"]:
    """conf/ as Hydra reads it, by one thread of a process at a time."""
    with _one_at_a_time, _hydra_made():
        yield Conf()


@contextmanager
def _hydra_made() -> Iterator[None]:
    if GlobalHydra.instance().is_initialized():  # within an application of Hydra's
        yield
        return
    with initialize_config_dir(str(project.conf()), version_base="1.3"):
        SourcesRegistry.instance().register(_ConfFolder)
        SourcesRegistry.instance().register(_Components)
        GlobalHydra.instance().clear()
        search_path = create_config_search_path(None)
        for folder in project.conf_folders():
            search_path.prepend("digitlab", f"{_ConfFolder.scheme()}://{folder}", anchor="schema")
        search_path.prepend("digitlab", f"{_Components.scheme()}://registered", anchor="schema")
        Hydra.create_main_hydra2("digitlab", search_path)
        yield


class Conf:
    """conf/ as it was when it was opened, as far as it has been read."""

    def __init__(self) -> None:
        self.groups = groups()
        self.loader: Any = GlobalHydra.instance().config_loader()
        self._bases: dict[tuple[str, ...], Values] = {}

    def base(self, groups: tuple[str, ...]) -> Values:
        """The YAML files of the chosen groups, laid over one another by Hydra; not to be changed."""
        if groups not in self._bases:
            try:
                composed = hydra_compose("config", overrides=_for_hydra(groups))
                values = OmegaConf.to_container(composed, resolve=False)
            except (HydraException, OmegaConfBaseException) as error:
                raise ConfigError([f"conf/ does not compose: {one_line(error)}"]) from None
            assert isinstance(values, dict)
            self._check_packages(groups, values)
            self._bases[groups] = {str(key): value for key, value in values.items()}
        return self._bases[groups]

    def files(self, groups: Sequence[str]) -> list[tuple[Path, str | None]]:
        """The files that these choices are composed of, each with the group that it is laid into."""
        defaults = self.loader.compute_defaults_list("config", _for_hydra(groups), RunMode.RUN).defaults
        return [
            (project.conf_file(f"{default.config_path}.yaml"), default.package)
            for default in defaults
            if default.config_path and not default.config_path.startswith("hydra")
        ]

    def _check_packages(self, groups: Sequence[str], composed: Mapping[Any, Any]) -> None:
        """A preset sets knobs of the whole: left in a group of its own, they would set nothing."""
        names = {field.name for field in dataclasses.fields(Config)}
        strays = composed.keys() & self.groups.keys() - names - {*SWEEP_GROUPS}
        if strays:
            files = [file for file, package in self.files(groups) if package in strays]
            line = "must begin with the line `# @package _global_`"
            raise ConfigError([f"{project.shown_conf_file(file)} {line}" for file in files])


class _ConfFolder(FileConfigSource):
    """A conf/ for Hydra, as our own YAML reads it."""

    @staticmethod
    def scheme() -> str:
        return "digitlab"

    def load_config(self, config_path: str) -> ConfigResult:
        file = Path(self.path, self._normalize_file_name(config_path))
        values = yaml_text.read(file, text_knobs())
        if isinstance(listed := values.get("defaults"), list):
            values["defaults"] = [entry for entry in listed if not _is_about_plugins(entry)]
        try:
            header = self._get_header_dict(yaml_text.text_of(file)[:512])
        except ValueError as error:
            raise ConfigError([f"{file}: {error}"]) from None
        return ConfigResult(
            provider=self.provider,
            path=f"{self.scheme()}://{self.path}",
            config=OmegaConf.create(values),
            header=header,
        )


class _Components(ConfigSource):
    """Components as the files that Hydra would find in conf/: `model/mlp`, with the knobs' defaults."""

    @staticmethod
    def scheme() -> str:
        return "components"

    def load_config(self, config_path: str) -> ConfigResult:
        component = self._named(config_path)
        assert component is not None, "Hydra asked before"
        return ConfigResult(
            provider=self.provider,
            path=f"{self.scheme()}://{self.path}",
            config=OmegaConf.create(component.values),
            header={"package": None},
        )

    def available(self) -> bool:
        return True

    def is_group(self, config_path: str) -> bool:
        return bool(lookup.everything().components.get(config_path.rstrip("/")))

    def is_config(self, config_path: str) -> bool:
        return self._named(config_path) is not None

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        return sorted(lookup.everything().components.get(config_path.rstrip("/"), ()))

    def _named(self, config_path: str) -> lookup.Component | None:
        group, _, name = config_path.removesuffix(".yaml").partition("/")
        return lookup.everything().components.get(group, {}).get(name)


def _is_about_plugins(default: Any) -> bool:
    """`override hydra/launcher: digitlab`, which every conf/ of an earlier digitlab has."""
    return isinstance(default, dict) and all(str(key).startswith("override hydra/") for key in default)


def _for_hydra(groups: Sequence[str]) -> list[str]:
    """Choices of groups as Hydra understands them, whatever the names of the files."""
    listed = project.default_choices()
    return [
        f"~{name}"
        if f"{name}={choice}" == NO_PRESET
        else f"{'' if name in listed else '+'}{name}={quoted(choice)}"
        for name, _, choice in (group.partition("=") for group in groups)
    ]


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())
