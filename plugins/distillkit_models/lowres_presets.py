"""Sizes of the low-resolution codecs: plain data, importable without torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LowResSize:
    """The size of one low-resolution codec; see `lowres_net` for what each figure builds.

    Attributes:
        width: channels C of the transforms at 1/8 resolution.
        latent: channels M of the latent y.
        blocks: blocks at 1/8 resolution, in analysis and as many in synthesis.
        swin_depth: Swin V2 blocks on the latent, in analysis and as many in synthesis; an even number alternates
            unshifted and shifted windows in full pairs.
        hyper_width: channels of the hyper-latent z and of the transforms around it; even.
        entropy_width: E: the hyper-prior and the context each give 2 E channels to the entropy parameters.
        context_kernel: side of the checkerboard context's kernel, in latent positions; odd.
    """

    width: int
    latent: int
    blocks: int
    swin_depth: int
    hyper_width: int
    entropy_width: int
    context_kernel: int = 3


# Teacher and student. Parameters, and thousands of multiply-accumulates per pixel (forward pass of the whole codec at
# 256x256, torch's FlopCounterMode / 2). All sizes are our choice.
PRESETS: dict[str, tuple[LowResSize, LowResSize]] = {
    # 1.17 M, 10.0 kMAC/pixel -> 0.36 M, 2.1: minutes on a CPU core.
    "tiny": (
        LowResSize(width=96, latent=96, blocks=3, swin_depth=1, hyper_width=32, entropy_width=32),
        LowResSize(width=48, latent=96, blocks=1, swin_depth=0, hyper_width=24, entropy_width=32),
    ),
    # 6.51 M, 51.7 kMAC/pixel -> 1.33 M, 8.0: hours on a CPU core.
    "lite": (
        LowResSize(width=192, latent=192, blocks=4, swin_depth=1, hyper_width=96, entropy_width=96),
        LowResSize(width=80, latent=192, blocks=2, swin_depth=0, hyper_width=48, entropy_width=56),
    ),
    # 40.0 M, 383.7 kMAC/pixel -> 5.05 M, 33.6: a day on a GPU.
    "paper": (
        LowResSize(width=384, latent=320, blocks=8, swin_depth=2, hyper_width=192, entropy_width=256, context_kernel=5),
        LowResSize(width=160, latent=320, blocks=3, swin_depth=0, hyper_width=96, entropy_width=96),
    ),
}
