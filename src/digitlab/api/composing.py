"""A checked configuration from overrides, or from a file that holds a whole one."""

from collections.abc import Sequence
from pathlib import Path

from digitlab.config.schema import Config
from digitlab.errors import UsageError
from digitlab.text.terminal import say


def compose(overrides: Sequence[str] = (), *, file: str | Path | None = None) -> Config:
    """The checked configuration that `overrides` mean: what `digitlab config` shows.

    It is printed as YAML; its knobs are attributes (`config.optimizer.learning_rate`), and
    `config.to_dict()` has them as plain nested values. Nothing can be changed in it: compose another.

    Args:
        overrides: as on the command line, in Hydra's grammar: `["model=cnn", "epochs=3"]`.
        file: a whole configuration in YAML, such as a run's config.yaml, to take the place of conf/.
            Overrides then set single knobs of it.

    Raises:
        ConfigError: `problems` lists every mistake of the overrides and of the files.
        UsageError: the overrides are no list of texts, or the file is no whole configuration.
    """
    if file is not None:
        from digitlab.config.given_config import read_config

        return read_config(Path(file), listed(overrides), say)
    from digitlab.config.composition import compose as composed

    return composed(listed(overrides))


def listed(overrides: Sequence[str]) -> list[str]:
    """The overrides, each a text. Raises UsageError if they are anything else."""
    if isinstance(overrides, str):
        raise UsageError(f"overrides must be a list of texts, got {overrides!r}: write [{overrides!r}]")
    texts = list(overrides)
    if wrong := [text for text in texts if not isinstance(text, str)]:
        raise UsageError(f'overrides must be texts such as "epochs=3", got {wrong[0]!r}')
    return texts
