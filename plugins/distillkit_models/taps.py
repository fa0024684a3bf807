"""Finds feature taps by the resolution of each block's output."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

import distillkit

_MOST_LEVELS = 4  # of blocks in blocks
_OTHER_NAMES = {  # of transforms that are not called as CompressAI calls them
    "g_a": ("encoder", "enc", "analysis", "analysis_transform"),
    "g_s": ("decoder", "dec", "synthesis", "synthesis_transform"),
    "h_a": ("hyper_encoder", "hyperencoder", "hyper_enc", "hyper_analysis"),
    "h_s": ("hyper_decoder", "hyperdecoder", "hyper_dec", "hyper_synthesis"),
}


@final
class ByResolution(distillkit.TapProvider):
    """Finds the stages of the transforms `g_a` and `g_s`, as CompressAI names them, or of an encoder and a decoder.

    A name that no module has gives way to another usual one (`encoder`, `enc`, `analysis`, `hyper_encoder`, ...).
    Within a transform, the last direct child whose output has 1/R of the image's height is the tap `analysis.1/R` or
    `synthesis.1/R`; where a transform wraps its blocks, or has them in a list, it is the child's child. The transforms'
    own outputs are `latent` and `reconstruction`; those of the hyper-analysis and hyper-synthesis transforms
    `hyper_latent` and `hyper_parameters`. What the synthesis transforms take, latent and hyper-latent after
    quantisation, is `quantised_latent` and `quantised_hyper_latent`. What the latent is coded with, scales and means,
    is `entropy_parameters`, scales first: the module of that name that runs once, or, where there is no module of that
    name, what the hyper-synthesis gives. Codecs that code groups of channels one after the other (ELIC) have one such
    module for each group; this tap is then the list of all of them.
    """

    class Config(distillkit.ComponentConfig):
        """Options.

        Attributes:
            analysis: name or path of the analysis transform, at any depth.
            synthesis: name or path of the synthesis transform, at any depth.
            hyper_analysis: name of the hyper-analysis transform, at any depth.
            hyper_synthesis: name of the hyper-synthesis transform, at any depth.
            entropy_parameters: name of the network that gives the parameters of y, at any depth.
        """

        analysis: str = "g_a"
        synthesis: str = "g_s"
        hyper_analysis: str = "h_a"
        hyper_synthesis: str = "h_s"
        entropy_parameters: str = "entropy_parameters"

    def find(
        self, trace: Sequence[distillkit.TracedModule], image_size: tuple[int, int]
    ) -> dict[str, str | distillkit.Tap]:
        """Return role -> module path, or `Tap`."""
        config = self.config
        taps: dict[str, str | distillkit.Tap] = {}
        analysis, synthesis = _find(trace, config.analysis), _find(trace, config.synthesis)
        hyper_analysis, hyper_synthesis = _find(trace, config.hyper_analysis), _find(trace, config.hyper_synthesis)
        for role, transform in (("analysis", analysis), ("synthesis", synthesis)):
            stages = _stages(trace, transform, image_size[0])
            taps |= {f"{role}.1/{reduction}": path for reduction, path in sorted(stages.items()) if reduction > 1}
        for module in trace:
            if module.path == analysis:
                taps["latent"] = module.path
                # The last stage of the analysis transform is the latent itself.
                taps.pop(f"analysis.1/{image_size[0] // module.shape.height}", None)
            elif module.path == synthesis:
                taps["reconstruction"] = module.path
                taps |= _taken(module, "quantised_latent")
            elif module.path == hyper_analysis:
                taps["hyper_latent"] = module.path
            elif module.path == hyper_synthesis:
                taps["hyper_parameters"] = module.path
                taps |= _taken(module, "quantised_hyper_latent")
        found = [module for module in trace if module.path.rpartition(".")[2] == config.entropy_parameters]
        # Where the context is made in two passes, the network runs twice and its outputs are put together afterwards.
        paths = [module.path for module in found]
        once = [module for module in found if paths.count(module.path) == 1]
        if once:
            read = _scales_first if all(_means_first(module) for module in once) else None
            path = tuple(module.path for module in once)
            taps["entropy_parameters"] = distillkit.Tap(path, read) if len(path) > 1 or read else path[0]
        elif not found and "hyper_parameters" in taps:
            taps["entropy_parameters"] = taps["hyper_parameters"]
        return taps


def _find(trace: Sequence[distillkit.TracedModule], name: str) -> str | None:
    """Return the path of the module of this name, or of another usual one, that lies nearest to the root."""
    for each in (name, *_OTHER_NAMES.get(name, ())):
        paths = {module.path for module in trace if f".{module.path}".endswith(f".{each}")}
        if paths:
            return min(paths, key=lambda path: (path.count("."), path))
    return None


def _taken(module: distillkit.TracedModule, role: str) -> dict[str, distillkit.Tap]:
    return {role: distillkit.Tap(module.path, takes=True)} if module.takes else {}


def _stages(trace: Sequence[distillkit.TracedModule], transform: str | None, height: int) -> dict[int, str]:
    """Return, by reduction, the last block there of a transform: of the level at which there are several."""
    stages: dict[int, str] = {}
    for depth in range(1, _MOST_LEVELS + 1):
        found: dict[int, str] = {}
        for module in trace:
            if transform is not None and re.fullmatch(re.escape(transform) + rf"(\.[^.]+){{{depth}}}", module.path):
                found[height // module.shape.height] = module.path
        if len(found) > len(stages):
            stages = found
        if len(stages) > 1:
            break
    return stages


def _means_first(module: distillkit.TracedModule) -> bool:
    """Return whether what follows the network takes its output for means and scales, in this order."""
    return getattr(module.owner, "chunks", None) == ("means", "scales")


def _scales_first(parameters: Tensor) -> Tensor:
    means, scales = parameters.chunk(2, 1)
    return torch.cat([scales, means], dim=1)
