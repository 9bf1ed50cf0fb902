"""How a component is registered: in one line above its class or function, in a user's own file."""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

Factory = TypeVar("Factory", bound=Callable[..., Any])


@dataclasses.dataclass(frozen=True, slots=True)
class Registered:
    group: str
    name: str
    factory: Callable[..., Any]


REGISTERED: list[Registered] = []  # in the order of the lines, by every module imported so far


def model(name: str) -> Callable[[Factory], Factory]:
    """Register a model: `model=NAME` builds it as `factory(image_shape, num_classes, **knobs)`.

    The class or function takes the shape of an image (channels, height, width) and the number of
    classes; its arguments after a `*` are its knobs, each with a type, a default, and a range and a
    meaning as `Annotated[int, Field(ge=1, description="width of the hidden layer")]`. It gives a
    torch.nn.Module that maps float32 (B, channels, height, width) to logits (B, num_classes).
    """
    return _adder("model", name)


def optimizer(name: str) -> Callable[[Factory], Factory]:
    """Register an optimizer: `optimizer=NAME` builds it as `factory(parameters, **knobs)`.

    One of its knobs is `learning_rate: float`, which schedulers scale. It gives a
    torch.optim.Optimizer, or an object with the methods of digitlab.training.optimizers.Optimizer.
    """
    return _adder("optimizer", name)


def scheduler(name: str) -> Callable[[Factory], Factory]:
    """Register a scheduler: `scheduler=NAME` builds it from `(num_steps, steps_per_epoch, **knobs)`.

    num_steps: of the whole training. It gives a function from the step (from 0, over the whole
    training) to a factor of the learning rate, which must depend on nothing else.
    """
    return _adder("scheduler", name)


def dataset(name: str) -> Callable[[Factory], Factory]:
    """Register a data set: `data=NAME` calls `factory(**knobs)`, which gives a digitlab.ImageData."""
    return _adder("data", name)


def _adder(group: str, name: str) -> Callable[[Factory], Factory]:
    def add(factory: Factory) -> Factory:
        REGISTERED.append(Registered(group, name, factory))
        return factory

    return add
