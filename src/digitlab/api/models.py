"""A trained model for a user's own code: arrays in, arrays out."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from digitlab.api.foreground import torch_as_it_was
from digitlab.api.reading import store_uri
from digitlab.api.recorded import Run
from digitlab.api.settling import reading_store
from digitlab.api.sweeping import Sweep
from digitlab.config.schema import Config
from digitlab.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

    from digitlab.inference.trained_model import TrainedModel


class Model:
    """A trained model with all that it needs; of torch nothing has to be known.

    Attributes:
        name: for people: that of its run, or of the registered model.
        run_id: of the run that trained it; empty where the registry does not say.
        config: of that run.
        class_names: in the order of the classes, from 0.
        image_shape: of one image: (H, W), or (H, W, 3) in colour.
        module: the torch module. It takes normalised images; `predict` does that.
    """

    def __init__(self, trained: "TrainedModel") -> None:
        self._classifier = trained.classifier
        self.name, self.run_id = trained.name, trained.run_id
        self.config: Config = trained.classifier.config
        self.module: nn.Module = trained.classifier.model
        self.class_names: list[str] = list(trained.signature.class_names)
        self.image_shape: tuple[int, ...] = trained.signature.picture_shape

    def predict(self, images: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """The most probable class of each image: (N,), an index of `class_names`.

        Args:
            images: as many as fit into memory, (N, *image_shape), as `load_data` gives them: integers
                from 0 (black) to 255 (white ink, or full colour).

        Raises:
            UsageError: another shape, or other values; it says which were expected.
        """
        return np.asarray(self.predict_proba(images).argmax(axis=1), dtype=np.int64)

    def predict_proba(self, images: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """The probability of each class for each image: (N, K); a row's sum is 1. See `predict`."""
        return self._classifier.predict(images)

    def __repr__(self) -> str:
        num_weights = sum(weights.numel() for weights in self.module.parameters())
        shape = "x".join(map(str, self.image_shape))
        return (
            f"Model {self.name}: images of {shape}, {len(self.class_names)} classes, "
            f"{num_weights:,} weights"
        )


def load_model(run: Run | Sweep | str, *, tracking_uri: str | None = None) -> Model:
    """The trained model of a run, ready to predict.

    Args:
        run: a `Run`, a `Sweep` (its best trial), a run's id (which may be shortened), a sweep's id or
            name, or a registered model, `digits@champion`.
        tracking_uri: the store; None: what conf/ and the environment say.

    Raises:
        UsageError: there is none, or it has left no weights. DigitlabError: the weights are damaged, or
            not those that the run has recorded. TrackingError: the store does not answer.
    """
    from digitlab.inference.trained_model import load_model as load

    if isinstance(run, Sweep):
        if run.best is None:
            raise UsageError(
                f"sweep {run.id} has no best trial: none has FINISHED with a validation score"
            )
        run = run.best
    reference = run.id if isinstance(run, Run) else run
    uri = run.tracking_uri if isinstance(run, Run) else store_uri(tracking_uri)
    store = reading_store(uri)
    with torch_as_it_was():  # building a model draws its first weights
        return Model(load(store, reference))
