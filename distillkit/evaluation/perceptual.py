"""A perceptual distance whose network's weights come from a file: nothing is downloaded."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import DataError


@final
class Lpips:
    """LPIPS 0.1 on AlexNet (unitless, 0 where equal, lower is better), by the package `lpips`.

    Source: Zhang et al. (2018), The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, arXiv
    1801.03924.

    Args:
        weights: torchvision's weights of AlexNet, trained on ImageNet (`alexnet-owt-7be5be79.pth`), or the same as
            safetensors; read without running code in it. The metric's linear layers come with the package.

    Raises:
        DataError: the package is missing, or the file cannot be used.
    """

    def __init__(self, weights: Path) -> None:
        try:
            import lpips
        except ImportError:
            raise DataError(
                "LPIPS: expected the package lpips, got none; install it: `pip install 'distillkit-lic[perceptual]'`."
            ) from None
        state = _read(weights)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torchvision's, of a parameter that lpips still uses
            self._network: Any = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False).eval().requires_grad_(False)
        features = self._network.net
        try:  # `slice2.3.weight` here is `features.3.weight` there
            own = {name: state[f"features.{name.partition('.')[2]}"] for name in features.state_dict()}
            features.load_state_dict(own)
        except (KeyError, RuntimeError) as error:
            raise DataError(
                f"LPIPS, weights {weights}: expected torchvision's AlexNet, got another network ({error}); name its "
                "file, alexnet-owt-7be5be79.pth."
            ) from None

    @torch.no_grad()
    def __call__(self, original: NDArray[Any], decoded: NDArray[Any]) -> float:
        """Return the distance of two pictures, uint8, shape (H, W, 3), RGB."""
        return float(self._network(_batch(original), _batch(decoded)))


def _batch(picture: NDArray[Any]) -> Tensor:
    """Return shape (1, 3, H, W), range [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1))[None]).float() / 127.5 - 1


def _read(path: Path) -> Mapping[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        content = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
    except FileNotFoundError:
        raise DataError(f"LPIPS, weights {path}: no such file; check the path.") from None
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        raise DataError(
            f"LPIPS, weights {path}: cannot be read as weights ({type(error).__name__}); name torchvision's AlexNet."
        ) from None
    if not isinstance(content, Mapping):
        raise DataError(f"LPIPS, weights {path}: expected a state dict, got {type(content).__name__}; name another.")
    return content
