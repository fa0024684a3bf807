"""Sizes of the pure transformer codecs: plain data, importable without torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SwinSize:
    """The size of one pure transformer codec; see `swin_net` for what each figure builds.

    Attributes:
        widths: channels at 1/2, 1/4, 1/8 and 1/16 resolution; the last are those of the latent y, M.
        depths: Swin V2 blocks at the same resolutions, in analysis and as many in synthesis.
        mlp_ratio: hidden units of a block's two-layer network, as a multiple of its channels.
        hyper_width: channels of the hyper-latent z and of the transforms around it; even.
        entropy_width: E: the hyper-prior and the context each give 2 E channels to the entropy parameters.
        context_kernel: side of the checkerboard context's kernel, in latent positions; odd.
    """

    widths: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    mlp_ratio: float
    hyper_width: int
    entropy_width: int
    context_kernel: int = 5

    @property
    def latent(self) -> int:
        """Channels M of the latent y."""
        return self.widths[-1]


# Teacher and student. Parameters, and thousands of multiply-accumulates per pixel (forward pass of the whole codec at
# 256x256, torch's FlopCounterMode / 2). All sizes are our choice.
PRESETS: dict[str, tuple[SwinSize, SwinSize]] = {
    # 0.71 M, 12.2 kMAC/pixel -> 0.278 M, 4.6: minutes on two CPU cores.
    "tiny": (
        SwinSize((24, 48, 64, 64), (1, 1, 2, 2), 2, hyper_width=32, entropy_width=32, context_kernel=3),
        SwinSize((16, 24, 32, 64), (1, 1, 1, 0), 2, hyper_width=24, entropy_width=32, context_kernel=3),
    ),
    # 7.47 M, 91.0 kMAC/pixel -> 1.94 M, 23.7: hours on a CPU.
    "lite": (
        SwinSize((48, 96, 128, 192), (1, 2, 4, 2), 3, hyper_width=96, entropy_width=128),
        SwinSize((32, 64, 96, 192), (1, 1, 2, 0), 2, hyper_width=64, entropy_width=64, context_kernel=3),
    ),
    # 35 M, 601.3 kMAC/pixel -> 12.6 M, 161.6: 64 % fewer parameters.
    "paper": (
        SwinSize((128, 192, 256, 320), (2, 2, 6, 2), 4, hyper_width=192, entropy_width=320),
        SwinSize((96, 128, 160, 320), (1, 1, 2, 0), 4, hyper_width=160, entropy_width=192),
    ),
}
