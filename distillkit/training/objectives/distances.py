"""Perceptual distances whose networks' weights come from files: nothing is downloaded."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...errors import DataError


class PerceptualDistance(Protocol):
    """How different two pictures look (unitless, 0 where equal).

    Attributes:
        name: its field of `ImageResult`.
        min_side: in pixels; of smaller pictures it is not measured.
    """

    name: str
    min_side: int

    def __call__(self, original: NDArray[Any], decoded: NDArray[Any]) -> float:
        """Return the distance of two pictures, uint8, shape (H, W, 3), RGB."""
        ...


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

    name = "lpips"
    min_side = 31

    def __init__(self, weights: Path) -> None:
        try:
            import lpips
        except ImportError:
            raise _missing("LPIPS", "lpips") from None
        state = _read("LPIPS", weights, "AlexNet")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torchvision's, of a parameter that lpips still uses
            self.network: Any = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False).eval().requires_grad_(False)
        features = self.network.net
        try:  # `slice2.3.weight` here is `features.3.weight` there
            own = {name: state[f"features.{name.partition('.')[2]}"] for name in features.state_dict()}
            features.load_state_dict(own)
        except (KeyError, RuntimeError) as error:
            raise _another("LPIPS", weights, "AlexNet", "alexnet-owt-7be5be79.pth", error) from None

    @torch.no_grad()
    def __call__(self, original: NDArray[Any], decoded: NDArray[Any]) -> float:
        """Return the distance of two pictures, uint8, shape (H, W, 3), RGB."""
        return float(self.network(*(2 * _batch(picture) - 1 for picture in (original, decoded))))


@final
class Dists:
    """DISTS on VGG-16 (unitless, 0 where equal, lower is better), by the package `torchmetrics`.

    Source: Ding et al. (2020), Image Quality Assessment: Unifying Structure and Texture Similarity, arXiv 2004.07728.

    Args:
        weights: torchvision's weights of VGG-16, trained on ImageNet (`vgg16-397923af.pth`), or the same as
            safetensors; read without running code in it. The weights of structure and texture come with the package.

    Raises:
        DataError: the package is missing, or the file cannot be used.
    """

    name = "dists"
    min_side = 1

    def __init__(self, weights: Path) -> None:
        try:
            from torchmetrics.functional.image.dists import DISTSNetwork
        except ImportError:
            raise _missing("DISTS", "torchmetrics") from None
        from torchvision.models import VGG16_Weights

        state = _read("DISTS", weights, "VGG-16")
        file = Path(VGG16_Weights.DEFAULT.url).name
        hub: Any = torch.hub
        before = hub._hub_dir  # not get_dir: to set what that returns would outlive a change of TORCH_HOME
        with tempfile.TemporaryDirectory() as folder:  # where torchmetrics finds the file in place of a download
            hub.set_dir(folder)
            try:
                (Path(folder) / "checkpoints").mkdir()
                torch.save(dict(state), Path(folder) / "checkpoints" / file)
                self._network: Any = DISTSNetwork().eval().requires_grad_(False)
            except OSError as error:
                raise DataError(
                    f"DISTS: {folder}: cannot be written: {error.strerror}; make room for a copy of the weights there, "
                    "or set TMPDIR to another folder."
                ) from None
            except (KeyError, RuntimeError) as error:
                raise _another("DISTS", weights, "VGG-16", file, error) from None
            finally:
                hub._hub_dir = before

    @torch.no_grad()
    def __call__(self, original: NDArray[Any], decoded: NDArray[Any]) -> float:
        """Return the distance of two pictures, uint8, shape (H, W, 3), RGB."""
        return float(self._network(_batch(original), _batch(decoded)))


def _batch(picture: NDArray[Any]) -> Tensor:
    """Return shape (1, 3, H, W), range [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1))[None]).float() / 255


def _missing(metric: str, package: str) -> DataError:
    return DataError(
        f"{metric}: expected the package {package}, got none; install it: `pip install 'distillkit-lic[perceptual]'`."
    )


def _another(metric: str, weights: Path, network: str, file: str, error: Exception) -> DataError:
    reason = " ".join(str(error).split())[:200]
    return DataError(
        f"{metric}, weights {weights}: expected torchvision's {network}, but it cannot be built from that ({reason}); "
        f"name its file, {file}."
    )


def _read(metric: str, path: Path, network: str) -> Mapping[str, Tensor]:
    from safetensors.torch import load_file

    if path.exists() and not path.is_file():  # a named pipe would be waited for
        raise DataError(f"{metric}, weights {path}: expected a file, got a folder or device; check the path.")
    try:
        content = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
    except FileNotFoundError:
        raise DataError(f"{metric}, weights {path}: no such file; check the path.") from None
    except Exception as error:  # unpickling rubbish raises anything
        raise DataError(
            f"{metric}, weights {path}: cannot be read as weights ({type(error).__name__}); name torchvision's "
            f"{network}."
        ) from None
    if not isinstance(content, Mapping):
        raise DataError(
            f"{metric}, weights {path}: expected a state dict, got {type(content).__name__}; name another file."
        )
    return content
