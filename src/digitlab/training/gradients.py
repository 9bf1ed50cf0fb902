"""Loss and gradients of a batch. Knows neither optimizers nor epochs."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from digitlab.models.build import ClosedForm

Gradients = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Sequence[Tensor]]]


def trained(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that training moves: a user's own model may have frozen ones."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def differentiator(model: nn.Module, parameters: Sequence[Tensor]) -> Gradients:
    """A function of images and labels: logits (B, C), mean loss, its gradients by `parameters`."""

    def closed_form(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Sequence[Tensor]]:
        logits = model(images)
        loss, by_class = cross_entropy(logits.t(), labels)
        return logits, loss, backpropagate(images, by_class.t())

    def autograd(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Sequence[Tensor]]:
        with torch.enable_grad():
            logits = model(images)
        detached = logits.detach()
        loss, by_class = cross_entropy(detached.t(), labels)
        # In this thread, on a GPU too: in autograd's own, whose first task is a product of matrices,
        # cuBLAS warns that there is no CUDA context.
        with torch.autograd.set_multithreading_enabled(False):
            gradients = torch.autograd.grad(
                logits, parameters, by_class.t(), allow_unused=True, materialize_grads=True
            )
        return detached, loss, gradients

    if not isinstance(model, ClosedForm):
        return autograd
    backpropagate = model.backpropagate
    return closed_form


def cross_entropy(by_class: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy (...) of logits (..., C, B), and its gradient: (softmax - one-hot) / B.

    Bishop 2006, equation 4.109. labels: (B,) or (..., B). Class by class, since torch's softmax over
    rows of ten takes 16 us and over columns 2 us; through autograd the loss alone would take 50 us a
    step. Leading dimensions change no bit: any number of models may stand side by side.
    """
    log_softmax = functional.log_softmax(by_class, dim=-2)
    index = labels.unsqueeze(-2)
    if by_class.dim() > index.dim():
        index = index.expand(*by_class.shape[:-2], 1, -1)
    loss = log_softmax.gather(-2, index).squeeze(-2).mean(-1).neg_()
    # Smaller numbers than 1e-35 would take exp 60 times as long, and are zero to every weight.
    gradient = log_softmax.clamp_(min=-80.0).exp_().scatter_(-2, index, -1.0, reduce="add")
    return loss, gradient.div_(by_class.shape[-1])
