"""What is known of the data sets of MNIST's kind: names, sizes, checksums. Reads nothing."""

FOLDERS = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "kmnist": "KMNIST"}  # torchvision's
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
NUM_CLASSES = 10
SIDE = 28
# SHA-256 over shape and bytes of the decoded arrays: see files.digest.
DIGESTS = {
    "digits": {
        "train-images-idx3-ubyte": "24977a4cddcdc73d2d21c9f9a96c6e14d05b9ae48c726fc6be020dd2eb39fc6e",
        "train-labels-idx1-ubyte": "e816f390f2f459ae4b3c8d6bc2f643551dbcda75bf5cc5d6135f1e66b644ead4",
        "t10k-images-idx3-ubyte": "262400be5f7c5e8e6d86735e4b790eb9fb88f821654fe067977f5411a0e7db9e",
        "t10k-labels-idx1-ubyte": "9d6ce02817ec729330022a274b561539158f5b3a1961f2e15c19f57c838d2e3e",
    },
    "mnist": {
        "train-images-idx3-ubyte": "783b1c0807cfc66ca1ef125e96f8a41ab816d75b1d8d28920718b6428b08cb9e",
        "train-labels-idx1-ubyte": "a79c46cff32cade98d7ade6d1dab8916171d8d1c65cb276c8998bc34d3e2707b",
        "t10k-images-idx3-ubyte": "010c0c13f96d5658bae4c04d605aa85a9ac8bc6ce619f5cb5f05aeb402f41514",
        "t10k-labels-idx1-ubyte": "b3b5727c195d9df958a13e9da4e1717a11307903ed50d26abca19d49bb33a8cb",
    },
    "fashion_mnist": {
        "train-images-idx3-ubyte": "d8ad9132a5971887b9275bd3d8e20fc26c599fbad1814014e960b8e10b53d165",
        "train-labels-idx1-ubyte": "3a5a898e8a129e0538eafde7302d0b5bd11e09099e7f981c578c725047895b03",
        "t10k-images-idx3-ubyte": "3194b88e5a57832ccf9bc8ffc11e1c3d7ccf2c411d27352dcfbfc4afa29c2ce5",
        "t10k-labels-idx1-ubyte": "b943cf13d75a9c055f388d561d683bed74ca5ce259ad23b9655e45af2ff9e771",
    },
}
# Of this one only the MD5 of the packed files is published (torchvision 0.29, datasets/mnist.py).
PACKED_MD5 = {
    "kmnist": {
        "train-images-idx3-ubyte": "bdb82020997e1d708af4cf47b453dcf7",
        "train-labels-idx1-ubyte": "e144d726b3acfaa3e44228e80efcd344",
        "t10k-images-idx3-ubyte": "5c965bf0a639b31b8f53240b1b52f4d7",
        "t10k-labels-idx1-ubyte": "7320c461ea6c1c855c0b718fb2a4b134",
    },
}
CLASS_NAMES = {
    "fashion_mnist": [
        *("T-shirt", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Boot"),
    ],
    "kmnist": ["o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"],
}


def class_names(name: str) -> list[str]:
    return CLASS_NAMES.get(name, [str(digit) for digit in range(NUM_CLASSES)])
