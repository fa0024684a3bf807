"""The libraries of trackers, which are extras."""

from __future__ import annotations

import importlib
from typing import Any

from ...errors import DistillkitError


def library(name: str) -> Any:
    """Return an imported package, whose extra has the same name.

    Raises:
        DistillkitError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        raise DistillkitError(f"{name}: not installed; `pip install 'distillkit-lic[{name}]'`.") from None
