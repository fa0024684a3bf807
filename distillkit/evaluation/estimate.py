"""What a picture would cost by the codec's own probabilities, to set beside what its file costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..model.adapters import CodecAdapter
from ..training.losses import sum_of_bits

MAX_PIXELS = 16_000_000  #: a forward pass takes a picture whole; a larger one might not fit in memory


@torch.no_grad()
def estimated_bpp(adapter: CodecAdapter, image: NDArray[Any]) -> float | None:
    """Return the information of the latents, in bits for each pixel of the original (padding costs bits, too).

    From one forward pass in eval mode, with rounded latents. A file is larger by its header and by what the coder's
    tables lose. With a serial context the two differ for another reason: the forward pass takes the context from
    latents that are rounded in another way than those that the decoder sees: the estimate is of a picture that nobody
    decodes.

    Args:
        adapter: the codec; left in eval mode.
        image: of the codec's samples, shape (H, W, C); None comes back for one of more than 16 megapixels.
    """
    height, width, _ = image.shape
    if height * width > MAX_PIXELS:
        return None
    margins = ((0, -height % adapter.stride), (0, -width % adapter.stride), (0, 0))
    padded = np.pad(image, margins, mode="edge")  # as ImageCodec pads
    batch = torch.from_numpy(padded.transpose(2, 0, 1)[None].astype(np.float32, order="C"))
    device = next((parameter.device for parameter in adapter.module.parameters()), torch.device("cpu"))
    adapter.module.eval()
    with torch.autocast(device.type, enabled=False):
        output = adapter.forward(batch.to(device).div_(adapter.samples.peak))
    return float(sum_of_bits(output.likelihoods.values())) / (height * width)
