"""Sizes of the Cheng2020-style codecs: plain data, importable without torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cheng2020Size:
    """The size of one Cheng2020-style codec; see `cheng2020_net` for what each figure builds.

    Attributes:
        width: channels N of the analysis and synthesis transforms.
        latent: channels M of the latent y.
        blocks: residual blocks at each resolution, beside the one that changes the resolution.
        swin_depth: Swin V2 blocks at 1/8 resolution, and as many on the latent, in analysis and in synthesis; even
            figures alternate unshifted and shifted windows in full pairs.
        hyper_width: channels of the hyper-latent z and of the transforms around it; even.
        entropy_width: E: the hyper-prior and the context each hand 2 E channels to the entropy parameters.
        context_kernel: side of the checkerboard context's kernel, in latent positions; odd.
    """

    width: int
    latent: int
    blocks: int
    swin_depth: int
    hyper_width: int
    entropy_width: int
    context_kernel: int = 5


PRESETS: dict[str, tuple[Cheng2020Size, Cheng2020Size]] = {
    "tiny": (Cheng2020Size(32, 64, 1, 2, 48, 48, 5), Cheng2020Size(24, 64, 0, 0, 32, 32, 3)),
    "lite": (Cheng2020Size(64, 128, 1, 2, 96, 96, 5), Cheng2020Size(40, 128, 0, 0, 64, 64, 3)),
    "paper": (Cheng2020Size(192, 320, 3, 2, 192, 320, 5), Cheng2020Size(112, 320, 1, 0, 112, 160, 5)),
}
