"""SOAP, without waiting for the device."""

from __future__ import annotations

from typing import Any, cast, final

import torch
from pytorch_optimizer import SOAP
from torch import Tensor
from typing_extensions import override


@final
class Soap(SOAP):
    """The library's SOAP, whose first eigenvectors the host does not check: what is not finite shows in the loss."""

    @staticmethod
    @override
    def get_orthogonal_matrix(mat: Any) -> list[Any]:
        """Return the eigenvectors of each matrix, the largest eigenvalue's first; an empty list for an empty one."""
        matrices: list[Any] = []
        for each in mat:
            if len(each) == 0:
                matrices.append([])
                continue
            a_little = 1e-30 * torch.eye(len(each), device=each.device, dtype=each.dtype)
            vectors = cast(Tensor, torch.ops.aten._linalg_eigh(each + a_little, "L", True)[1])
            matrices.append(vectors.flip(1))
        return matrices
