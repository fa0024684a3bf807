"""What a long export reports while it works."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import final

from .networks import Network


@final
class Progress:
    """Reports each part of an export in a line, with the seconds since its start.

    Args:
        on_part: receives the lines.
    """

    def __init__(self, on_part: Callable[[str], None]) -> None:
        self._on_part = on_part
        self._start = time.monotonic()

    def note(self, text: str) -> None:
        """Report what starts now, or is done."""
        self._on_part(f"{text} ({time.monotonic() - self._start:.0f} s)")

    def written(self, networks: Sequence[Network]) -> Iterator[Network]:
        """Yield networks; each is reported when the next is asked for, all of them before the first."""
        sizes = [sum(tensor.nbytes for tensor in network.module.state_dict().values()) for network in networks]
        self.note(f"writing {len(networks)} networks of {sum(sizes) / 1e6:.2f} MB")
        for number, (network, size) in enumerate(zip(networks, sizes, strict=True), 1):
            yield network
            self.note(f"{network.name}: {number} of {len(networks)}, {size / 1e6:.2f} MB")
