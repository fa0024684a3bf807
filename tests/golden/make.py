"""Makes the golden files of the present version of the file format: run it once for each version, never again.

    python tests/golden/make.py

Models are trained where they are missing, and kept: the files of every version are of the same three codecs. They know
waves only, well enough for latents of several symbols, scales and means.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import distillkit
from distillkit.codec.bitstream import VERSION
from distillkit.model.adapters import as_codec
from distillkit.model.file import save_model

FOLDER = Path(__file__).parent
ARCHITECTURES = {
    "checkerboard": {"architecture": "cheng2020-anchor-checkerboard", "N": 8},
    "mean-scale": {"architecture": "mbt2018-mean", "N": 8, "M": 8},
    "serial": {"architecture": "mbt2018", "N": 8, "M": 8},
}
PAIR = "models.compressai"


def unpacked(kind: str, folder: Path) -> Path:
    """Return the model file of a kind of codec, taken out of its archive into `folder`."""
    with zipfile.ZipFile(FOLDER / f"{kind}.zip") as archive:
        return Path(archive.extract(f"{kind}.safetensors", folder))


def picture(seed: int = 0, height: int = 100, width: int = 150) -> np.ndarray:
    """Return waves and noise, uint8, shape (height, width, 3)."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    lengths, phases = random.uniform(3, 15, (2, 3)), random.uniform(0, 6, (2, 3))
    rows = [np.cos(y / length + phase) for length, phase in zip(lengths[0], phases[0], strict=True)]
    columns = [np.sin(x / length + phase) for length, phase in zip(lengths[1], phases[1], strict=True)]
    waves = 128 + 50 * np.stack(rows, 2) + 60 * np.stack(columns, 2)
    return (waves + random.normal(0, 6, waves.shape)).clip(0, 255).astype(np.uint8)


def make_model(kind: str) -> None:
    """Train a codec for seconds and write its archive."""
    pair = distillkit.load_plugins().get("pair", PAIR, "golden files")
    options = {"student": ARCHITECTURES[kind]}
    torch.manual_seed(0)
    module = pair(pair.Config.model_validate(options)).build_student().train()
    codec = as_codec(module)
    optimizer = torch.optim.Adam(module.parameters(), 5e-3)
    for step in range(600):
        images = torch.from_numpy(picture(step + 1, 64, 128) / 255).float().permute(2, 0, 1)[None].contiguous()
        output = codec.forward(images)
        bits = sum(-likelihoods.log2().sum() for likelihoods in output.likelihoods.values())
        loss = 255**2 * 0.1 * (output.x_hat - images).square().mean() + bits / images[0, 0].numel()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
    with torch.no_grad():  # the coder sees more symbols, escapes among them, than so short a training gives
        [layer for layer in module.g_a.modules() if isinstance(layer, torch.nn.Conv2d)][-1].weight.mul_(3)
    path = FOLDER / f"{kind}.safetensors"
    save_model(path, codec, PAIR, options, "student", 0.1, half=True)
    with zipfile.ZipFile(FOLDER / f"{kind}.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.write(path, path.name)
    path.unlink()


def make_file(kind: str, folder: Path) -> None:
    """Write the compressed picture and, where there is none yet, what it decodes to."""
    model = distillkit.load_model(unpacked(kind, folder))
    codec = distillkit.ImageCodec(model.codec, model.fingerprint, precision="fp32")
    data = codec.encode(picture())
    (FOLDER / f"{kind}-v{VERSION}.dk").write_bytes(data)
    if not (FOLDER / f"{kind}.png").exists():
        Image.fromarray(codec.decode(data)).save(FOLDER / f"{kind}.png")
    print(f"{kind}: {len(data)} bytes, spread {codec.decode(data).std():.1f}")


if __name__ == "__main__":
    import tempfile

    for each in ARCHITECTURES:
        if not (FOLDER / f"{each}.zip").exists():
            make_model(each)
        with tempfile.TemporaryDirectory() as place:
            make_file(each, Path(place))
