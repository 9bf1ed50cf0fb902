"""The fastest way of computing many members at once that has, on this machine, the bits of each alone.

Libraries choose other kernels for other shapes and processors, and promise nothing. So nothing is
assumed: each way is tried on random numbers in the very shapes at hand, compared with the plain way on
tensors of each member's own, and timed. Answers are kept in mlruns/exact.json.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from digitlab.config import project
from digitlab.config.fingerprint import code_digest
from digitlab.models.products import in_use
from digitlab.text.files import write_atomically
from digitlab.training import arithmetic

FILE = "exact.json"
FEWEST_DRAWS, MOST_DRAWS = 3, 24
ENOUGH_RESULTS = 20_000  # numbers to compare; small tensors are drawn more often

Compute = Callable[[str], Sequence[Tensor]]


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """The way to take. gain: its speed as a multiple of the plain way's; 1 where nothing was timed."""

    way: str
    gain: float = 1.0


@dataclasses.dataclass(frozen=True, slots=True)
class Draw:
    """Random numbers to try a way with, the same at each call.

    is_equal: all members get the same numbers, so that one whose place decides a bit differs from the
    others without luck.
    """

    seed: int
    is_equal: bool
    device: torch.device

    def numbers(self, members: int, *shape: int, salt: int) -> Tensor:
        """Standard normal (members, *shape). salt: tells the tensors of one draw apart."""
        generator = torch.Generator().manual_seed(1_000 * self.seed + salt)
        drawn = torch.randn((1 if self.is_equal else members, *shape), generator=generator)
        return drawn.expand(members, *shape).contiguous().to(self.device)

    def activations(self, members: int, *shape: int, salt: int) -> Tensor:
        """As ReLU and dropout leave them: three quarters are zero."""
        return self.numbers(members, *shape, salt=salt).relu_() * self._kept(members, *shape, salt=salt)

    def gradients(self, members: int, *shape: int, salt: int) -> Tensor:
        """As they come back through dropout: half are zero, of either sign."""
        return self.numbers(members, *shape, salt=salt) * self._kept(members, *shape, salt=salt) / 100

    def _kept(self, members: int, *shape: int, salt: int) -> Tensor:
        return (self.numbers(members, *shape, salt=salt + 500) > 0).float()


def draws(device: torch.device, num_results: int) -> list[Draw]:
    """Of equal members and of different ones in turns, for results of so many numbers each."""
    count = min(max(-(-ENOUGH_RESULTS // num_results), FEWEST_DRAWS), MOST_DRAWS)
    return [Draw(seed, seed % 2 == 0, device) for seed in range(count)]


def choose(
    question: str,
    ways: Sequence[str],
    tried: Sequence[Draw],
    prepare: Callable[[Draw], tuple[Compute, Callable[[], Sequence[Tensor]]]],
) -> str:
    """The fastest way whose results equal the plain ones to the bit in every draw; or else the last.

    ways: the last one is the plain way. question: says what is computed in which shapes; the answer is
    kept by it. prepare: gives for a draw what computes it in any way, and what computes it as alone,
    member after member, on tensors of their own.
    """

    plain = ways[-1]

    def find() -> Answer:
        exact = list(ways)
        for draw in tried:
            compute, alone = prepare(draw)
            expected = alone()
            exact = [way for way in exact if way == plain or equal(compute(way), expected)]
            if len(exact) == 1:
                return Answer(plain)
        compute, device = prepare(tried[0])[0], tried[0].device
        seconds = measure({way: functools.partial(compute, way) for way in exact}, device)
        fastest = min(exact, key=seconds.__getitem__)
        return Answer(fastest, seconds[plain] / seconds[fastest])

    return remembered(question, ways, find).way


def equal(some: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    """To the bit: NaN equals NaN, and 0 is not -0."""
    return all(
        torch.equal(one.contiguous().view(torch.int32), other.contiguous().view(torch.int32))
        for one, other in zip(some, others, strict=True)
    )


def measure(
    works: Mapping[str, Callable[[], object]], device: torch.device, rounds: int = 3
) -> dict[str, float]:
    """Seconds of each: the least of some rounds, in turns. On a CPU of this thread's own time, which
    others that keep the machine busy do not lengthen as much."""

    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            return time.perf_counter()
        return time.thread_time()

    least = dict.fromkeys(works, float("inf"))
    for _ in range(rounds):
        for name, work in works.items():
            started = clock()
            work()
            least[name] = min(least[name], clock() - started)
    return least


def remembered(question: str, ways: Sequence[str], find: Callable[[], Answer]) -> Answer:
    """The answer of an earlier process, if it is one of the ways; or else `find`'s."""
    key = _key(torch.get_num_threads(), in_use().name)
    answers = _answers(key)
    if question not in answers or answers[question].way not in ways:
        answers[question] = find()
        _keep(key, answers)
    return answers[question]


def known_answers() -> dict[str, Answer]:
    """All answers for this machine and this code, by question."""
    return dict(_answers(_key(torch.get_num_threads(), in_use().name)))


@functools.cache
def _decisive(threads: int, product: str) -> dict[str, str]:
    """All that the answers depend on: what rounds here, by name and by results, and our own code.

    product: the one in use.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rounding = arithmetic.describe(threads=threads, device=device)
    canary = arithmetic.canary(threads=threads, device=device)
    return {**rounding, "canary": canary, "source": code_digest()}


@functools.cache
def _key(threads: int, product: str) -> str:
    return hashlib.sha256(json.dumps(_decisive(threads, product), sort_keys=True).encode()).hexdigest()[
        :16
    ]


@functools.cache
def _answers(key: str) -> dict[str, Answer]:
    """Of this process, with those that others had kept before."""
    return _parsed(_read().get(key))


def _keep(key: str, answers: dict[str, Answer]) -> None:
    """For other processes. Answers of other machines stay, answers of older code do not."""
    depends_on = _decisive(torch.get_num_threads(), in_use().name)
    entries = {
        other: entry for other, entry in _read().items() if _source(entry) == depends_on["source"]
    }
    answers |= {**_parsed(entries.get(key)), **answers}
    entry = {question: dataclasses.asdict(answer) for question, answer in answers.items()}
    entries[key] = {"depends_on": depends_on, "answers": entry}
    with contextlib.suppress(OSError):  # a disk that is full costs a trial, no result
        project.mlruns().mkdir(exist_ok=True)
        write_atomically(project.mlruns() / FILE, json.dumps(entries, indent=1))


def _source(entry: Any) -> str | None:
    try:
        return str(entry["depends_on"]["source"])
    except (KeyError, TypeError):
        return None


def _parsed(entry: Any) -> dict[str, Answer]:
    try:
        return {
            str(question): Answer(str(known["way"]), float(known["gain"]))
            for question, known in entry["answers"].items()
        }
    except (AttributeError, KeyError, TypeError, ValueError):
        return {}  # damaged or of another version: tried again


def _read() -> dict[str, Any]:
    try:
        known = json.loads((project.mlruns() / FILE).read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
