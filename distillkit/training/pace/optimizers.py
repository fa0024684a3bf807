"""Optimisers as components: what moves the weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Annotated, Any, final

from pydantic import Field, NonNegativeFloat
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from ...hooks.components import Component, ComponentConfig
from .fused import in_one_pass
from .muon import Muon

_Beta = Annotated[float, Field(ge=0, lt=1)]


class OptimizerBuilder(Component, ABC):
    """Builds the optimiser of a run. Built as `Builder(config)`.

    The loop sets the learning rate (`lr` of every group) before each step, and keeps the optimiser's `state_dict` in
    the checkpoints: tensors, numbers and text.
    """

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def build(self, parameters: Iterable[nn.Parameter], learning_rate: float) -> Optimizer:
        """Return the optimiser over `parameters`: the student's and the loss terms' adapters'.

        Args:
            parameters: those that are trained; one that is frozen in a phase has no gradient in its steps.
            learning_rate: at its highest.
        """


@final
class AdamBuilder(OptimizerBuilder):
    """Adam.

    Source: Kingma and Ba (2015), arXiv 1412.6980.
    """

    class Config(ComponentConfig):
        """Options.

        Attributes:
            betas: decay of the running means of the gradient and of its square.
        """

        betas: tuple[_Beta, _Beta] = (0.9, 0.999)

    def build(self, parameters: Iterable[nn.Parameter], learning_rate: float) -> Optimizer:
        """Return Adam."""
        parameters = list(parameters)
        return Adam(parameters, lr=learning_rate, betas=self.config.betas, **in_one_pass(parameters))


@final
class AdamWBuilder(OptimizerBuilder):
    """Adam with weight decay beside the gradient.

    Source: Loshchilov and Hutter (2019), arXiv 1711.05101.
    """

    class Config(ComponentConfig):
        """Options.

        Attributes:
            betas: decay of the running means of the gradient and of its square.
            weight_decay: share of each weight that is taken off in a step, before the learning rate.
        """

        betas: tuple[_Beta, _Beta] = (0.9, 0.999)
        weight_decay: NonNegativeFloat = 0.01

    def build(self, parameters: Iterable[nn.Parameter], learning_rate: float) -> Optimizer:
        """Return AdamW."""
        config = self.config
        parameters = list(parameters)
        one_pass = in_one_pass(parameters)
        return AdamW(parameters, learning_rate, config.betas, weight_decay=config.weight_decay, **one_pass)


@final
class SgdBuilder(OptimizerBuilder):
    """Stochastic gradient descent."""

    class Config(ComponentConfig):
        """Options.

        Attributes:
            momentum: decay of the running sum of gradients; 0 goes without.
        """

        momentum: _Beta = 0.0

    def build(self, parameters: Iterable[nn.Parameter], learning_rate: float) -> Optimizer:
        """Return SGD."""
        return SGD(parameters, lr=learning_rate, momentum=self.config.momentum)


@final
class SoapBuilder(OptimizerBuilder):
    """SOAP: Adam in the eigenbasis of Shampoo's preconditioner. It needs far fewer steps than Adam.

    Source: Vyas et al. (2024), arXiv 2409.11321.
    Departure: dimensions over 400 (the 512 units of Swin V2's position-bias networks) have no preconditioner: there it
    costs more than it gains.
    """

    class Config(ComponentConfig):
        """Options.

        Attributes:
            betas: decay of the running means of the gradient and of its square.
            weight_decay: share of each weight that is taken off in a step, before the learning rate.
        """

        betas: tuple[_Beta, _Beta] = (0.95, 0.95)
        weight_decay: NonNegativeFloat = 0.0

    def build(self, parameters: Iterable[nn.Parameter], learning_rate: float) -> Optimizer:
        """Return SOAP."""
        from .soap import Soap

        return Soap(
            parameters,
            lr=learning_rate,
            betas=self.config.betas,
            weight_decay=self.config.weight_decay,
            precondition_frequency=10,
            max_precondition_dim=400,
        )


@final
class MuonBuilder(OptimizerBuilder):
    """Muon: each matrix of momentum is made orthogonal. It needs as few steps as SOAP, and they are cheaper.

    Source: Jordan et al. (2024), Muon: An optimizer for hidden layers in neural networks; Liu et al. (2025), arXiv
    2502.16982, for the factor by which a matrix moves.
    """

    def build(self, parameters: Iterable[nn.Parameter], learning_rate: float) -> Optimizer:
        """Return Muon for matrices and kernels, Adam for the rest."""
        return Muon(parameters, learning_rate)
