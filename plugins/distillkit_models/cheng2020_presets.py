"""Sizes of the Cheng2020-style codecs: plain data, importable without torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cheng2020Size:
    """The size of one Cheng2020-style codec; see `cheng2020_net` for what each figure builds.

    Attributes:
        width: channels N of the analysis and synthesis transforms.
        latent: channels M of the latent y.
        blocks: residual blocks at each resolution from 1/`blocks_from` on, beside the one that changes the resolution.
        swin_depth: Swin V2 blocks at 1/8 resolution, and as many on the latent, in analysis and in synthesis; even
            figures alternate unshifted and shifted windows in full pairs.
        hyper_width: channels of the hyper-latent z and of the transforms around it; even.
        entropy_width: E: the hyper-prior and the context each give 2 E channels to the entropy parameters.
        context_kernel: side of the checkerboard context's kernel, in latent positions; odd.
        blocks_from: 2, 4 or 8: the finest resolution with residual blocks; 2 where `blocks` is 0.
    """

    width: int
    latent: int
    blocks: int
    swin_depth: int
    hyper_width: int
    entropy_width: int
    context_kernel: int = 5
    blocks_from: int = 2


# Teacher and student. Parameters, and thousands of multiply-accumulates per pixel (forward pass of the whole codec at
# 256x256, torch's FlopCounterMode / 2). FEDS's own sizes are not public: all of these are our choice.
PRESETS: dict[str, tuple[Cheng2020Size, Cheng2020Size]] = {
    # 1.15 M, 26.2 kMAC/pixel -> 0.35 M, 5.0: minutes on two CPU cores.
    "tiny": (
        Cheng2020Size(
            width=40,
            latent=64,
            blocks=1,
            swin_depth=1,
            hyper_width=32,
            entropy_width=32,
            context_kernel=3,
            blocks_from=8,
        ),
        Cheng2020Size(width=16, latent=64, blocks=0, swin_depth=0, hyper_width=24, entropy_width=32, context_kernel=3),
    ),
    # 8.59 M, 91.6 kMAC/pixel -> 2.31 M, 29.0: hours on a CPU. No residual blocks at 1/2 and 1/4, where they are dearest
    # and slow the first thousands of steps.
    "lite": (
        Cheng2020Size(width=64, latent=192, blocks=1, swin_depth=2, hyper_width=96, entropy_width=128, blocks_from=8),
        Cheng2020Size(width=40, latent=192, blocks=0, swin_depth=0, hyper_width=64, entropy_width=64, context_kernel=3),
    ),
    # 54.1 M, 1957.2 kMAC/pixel -> 18.5 M, 283.0. The largest student with 63 % fewer parameters is wider; we stay
    # below it for the sake of coding time.
    "paper": (
        Cheng2020Size(width=192, latent=320, blocks=3, swin_depth=2, hyper_width=192, entropy_width=320),
        Cheng2020Size(width=128, latent=320, blocks=0, swin_depth=0, hyper_width=160, entropy_width=240),
    ),
}
