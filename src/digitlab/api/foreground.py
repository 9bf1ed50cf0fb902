"""Work for a user's own process, which is left as it was: no signal handler, no setting of torch.

The work is done in a thread of its own while the caller waits, so that Ctrl-C, which Python raises in
the main thread at any moment, meets nothing half done. Knows no runs.
"""

import contextlib
import contextvars
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from typing import TypeVar

from digitlab.errors import Interrupted
from digitlab.runs.interrupts import Interrupts
from digitlab.text.terminal import say

POLL_SECONDS = 0.2
Result = TypeVar("Result")

_turn = threading.Lock()  # torch's settings and random numbers are the process's: one work at a time


def in_foreground(work: Callable[[Interrupts], Result]) -> Result:
    """What `work` returns. It is done when no other thread of this process has work under way.

    Raises:
        KeyboardInterrupt: Ctrl-C, after the work has ended at the next moment when nothing is half
            done; a second Ctrl-C does not wait for that.
    """
    interrupts, future = Interrupts(), Future[Result]()
    context = contextvars.copy_context()  # a notebook finds the cell to write to by it

    def do() -> None:
        try:
            with _having_the_turn(interrupts):
                future.set_result(work(interrupts))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=context.run, args=(do,), name="digitlab").start()
    try:
        wait([future])
    except KeyboardInterrupt:
        interrupts.request(signal.SIGINT)
        say("stopping; once more does not wait for it")
        wait([future])
        raise
    try:
        return future.result()
    except Interrupted as error:  # a signal stopped a process of a sweep
        raise KeyboardInterrupt(str(error)) from None


@contextlib.contextmanager
def undisturbed() -> Iterator[bool]:
    """Whether no work is under way in this process; none begins meanwhile. Waits for nothing."""
    is_ours = _turn.acquire(blocking=False)
    try:
        yield is_ours
    finally:
        if is_ours:
            _turn.release()


@contextlib.contextmanager
def torch_as_it_was() -> Iterator[None]:
    """Put back what training sets for the process: threads, product, random numbers, GPU arithmetic,
    memory.

    What cannot be put back: `arithmetic=portable`, which a process has from its first step on or never.
    """
    import torch

    from digitlab.models import products
    from digitlab.training.devices import give_memory_back

    product = products.in_use()
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    generators = [torch.default_generator]
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        generators += torch.cuda.default_generators
    states = [(generator, generator.get_state()) for generator in generators]
    cudnn, mode = torch.backends.cudnn, torch.get_deterministic_debug_mode()
    flags = cudnn.benchmark, cudnn.allow_tf32
    fills = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        products.use(product)
        torch.set_default_dtype(dtype)
        for generator, state in states:
            generator.set_state(state)
        cudnn.benchmark, cudnn.allow_tf32 = flags
        if torch.get_deterministic_debug_mode() != mode:
            torch.set_deterministic_debug_mode(mode)
        torch.utils.deterministic.fill_uninitialized_memory = fills  # type: ignore[attr-defined]
        give_memory_back()


@contextlib.contextmanager
def _having_the_turn(interrupts: Interrupts) -> Iterator[None]:
    if not _turn.acquire(blocking=False):
        say("waiting for what another thread of this process has under way")
        while not _turn.acquire(timeout=POLL_SECONDS):
            interrupts.check()
    try:
        yield
    finally:
        _turn.release()
