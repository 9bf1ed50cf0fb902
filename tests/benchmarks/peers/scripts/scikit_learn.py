"""scikit-learn's logistic regression: python scikit_learn.py SOLVER ITERATIONS

Prints the accuracy on the test images. As many threads as it takes by itself.
"""

import os
import sys
import warnings
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression

warnings.simplefilter("ignore")  # that it has not converged after so few iterations


def read(images: str, labels: str) -> tuple[np.ndarray, np.ndarray]:
    raw = Path(os.environ["DIGITLAB_DATA"]) / "MNIST" / "raw"
    pixels = np.frombuffer((raw / images).read_bytes()[16:], np.uint8).reshape(-1, 784)
    normalised = (pixels.astype(np.float32) / 255 - 0.1307) / 0.3081
    return normalised, np.frombuffer((raw / labels).read_bytes()[8:], np.uint8)


def main() -> None:
    solver, iterations = sys.argv[1], int(sys.argv[2])
    images, labels = read("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
    model = LogisticRegression(solver=solver, max_iter=iterations, tol=0.0, random_state=0)
    model.fit(images[:55000], labels[:55000])
    print(model.score(*read("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")))


if __name__ == "__main__":
    main()
