"""Independent random streams from one recorded seed. Must not know what they are used for."""

import hashlib


def derive_seed(seed: int, *purpose: str | int) -> int:
    """A seed in [0, 2**63) of its own for each purpose, the same on every machine and version.

    Streams that share a seed share their numbers (weights drawn with the seed of the data order
    correlate with it), hence one per purpose: `derive_seed(seed, "order", epoch)`.
    """
    text = "\x1f".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1
