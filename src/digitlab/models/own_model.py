"""A model that a user brings, built and tried once: what is wrong with it is said before training."""

import torch
from torch import nn

from digitlab.config.components import lookup
from digitlab.config.components.origins import where_failed
from digitlab.config.kinds import OwnConfig
from digitlab.errors import UsageError


def own_model(config: OwnConfig, *, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """The component of that name, after it has mapped two black images to logits (2, num_classes).

    Raises:
        UsageError: it fails, or gives something else.
    """
    component = lookup.registered("model")[config.name]
    try:
        model = lookup.build("model", config, image_shape, num_classes)
        problem = _problem(model, image_shape, num_classes)
    except Exception as error:  # whatever a user's code raises
        raise UsageError(f"{component}: {where_failed(error, component.origin.root)}") from error
    if problem:
        raise UsageError(f"{component}: {problem}")
    built: nn.Module = model
    return built


def _problem(model: object, image_shape: tuple[int, int, int], num_classes: int) -> str | None:
    if not isinstance(model, nn.Module):
        return f"it must give a torch.nn.Module, got {type(model).__name__}"
    if not any(parameter.requires_grad for parameter in model.parameters()):
        return "it has no parameter to train"
    was_training, generator = model.training, torch.default_generator.get_state()
    with torch.no_grad():
        logits = model.eval()(torch.zeros(2, *image_shape))
    model.train(was_training)
    torch.default_generator.set_state(generator)
    shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if shape != (2, num_classes):
        return f"for two images it must give logits of shape (2, {num_classes}), got {shape}"
    return None
