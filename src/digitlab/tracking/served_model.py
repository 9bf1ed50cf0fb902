"""A run's model as MLflow loads and serves it. MLflow finds this module by its name."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from digitlab.errors import UsageError
from digitlab.models.saved import Classifier, load_classifier


class ServedModel:
    """Pixels in, probabilities out; what it refuses is answered with status 400 over HTTP."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier

    def predict(
        self, images: object, params: dict[str, object] | None = None
    ) -> npt.NDArray[np.float32]:
        """See Classifier.predict. `params` is of MLflow's protocol; there are none.

        Raises:
            MlflowException: the images are refused.
        """
        try:
            return self._classifier.predict(images)
        except UsageError as error:
            raise MlflowException(str(error), error_code=INVALID_PARAMETER_VALUE) from None


def _load_pyfunc(path: str) -> ServedModel:
    """Called by mlflow.pyfunc.load_model."""
    return ServedModel(load_classifier(Path(path)))
