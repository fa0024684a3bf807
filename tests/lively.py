"""Small codecs with random weights whose latents are not all zero, and a picture for them."""

from __future__ import annotations

import numpy as np
import torch

import distillkit
from distillkit.model.adapters import as_codec, fingerprint

KINDS = ("factorized", "scale", "mean-scale", "serial", "raster-scan", "checkerboard")


def module(kind: str) -> torch.nn.Module:
    from compressai import models

    torch.manual_seed(0)
    if kind == "checkerboard":
        pair = distillkit.load_plugins().get("pair", "models.cheng2020", "test")
        built = pair(pair.Config(size="tiny")).build_student()
    elif kind == "raster-scan":
        built = models.Cheng2020AnchorCheckerboard(16)
        _use_raster_scan(built)
    else:
        architectures = {
            "factorized": models.FactorizedPrior,
            "scale": models.ScaleHyperprior,
            "mean-scale": models.MeanScaleHyperprior,
            "serial": models.JointAutoregressiveHierarchicalPriors,
        }
        built = architectures[kind](12, 16)
    with torch.no_grad():
        for name, parameter in built.named_parameters():
            analysis = name.startswith("g_a") and parameter.ndim == 4
            if name.endswith("weight") and (analysis or "h_s" in name or "entropy_parameters" in name):
                parameter.mul_(2.0)
    return built.eval()


def adapter(kind: str) -> distillkit.CodecAdapter:
    codec = as_codec(module(kind))
    codec.update()
    return codec


def coder(kind: str, **options) -> distillkit.ImageCodec:
    codec = adapter(kind)
    return distillkit.ImageCodec(codec, fingerprint(codec.module), **options)


def picture(height: int = 100, width: int = 150) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    random = np.random.default_rng(0)
    waves = np.stack([128 + 70 * np.sin(x / (9 + c)) + 50 * np.cos(y / (7 + c)) for c in range(3)], 2)
    return (waves + random.normal(0, 6, waves.shape)).clip(0, 255).astype(np.uint8)


def _use_raster_scan(built) -> None:
    from compressai.entropy_models import GaussianConditional
    from compressai.latent_codecs import HyperpriorLatentCodec, RasterScanLatentCodec
    from compressai.layers import MaskedConv2d

    old = built.latent_codec.y
    context = MaskedConv2d(16, 32, kernel_size=5, padding=2)
    y_codec = RasterScanLatentCodec(GaussianConditional(None), old.entropy_parameters, context)
    built.latent_codec = HyperpriorLatentCodec({"y": y_codec, "hyper": built.latent_codec.hyper})
