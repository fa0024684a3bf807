"""FEDS's channel loss, on the latent channels ranked by their entropy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, final

import torch
from pydantic import Field
from torch import Tensor

import distillkit


@final
class ChannelEntropy(distillkit.LossTerm):
    """Squared error of the most informative latent channels, weighted by their share of the bits.

    h_c = mean over a fixed calibration set of the sum over positions of -log2 p_T(y_c | context), in bits per pixel
    S = the smallest set of channels that carries `keep` of the sum of h;  w_c = h_c / sum of h over S
    L = sum over c in S of w_c * mean((y_S,c' - sg(y_T,c))^2), in squared quantisation steps

    y_S, y_T: latents before quantisation, shape (B, M_S, H, W) and (B, M_T, H, W), without noise on either side.
    Channel c' of the student is compared with the teacher's channel c: c' = c where M_S = M_T; where M_S < M_T, c' is
    the place of c in the order of h, and S is chosen among the M_S most informative channels.

    For a student of many rates, h, S and w are measured at several qualities, and a crop's w_c is interpolated linearly
    between the two nearest; c' belongs to one c at all qualities, by the mean of h.

    Source: FEDS (arXiv 2503.06399) emphasises the most informative latent channels, ranked by entropy.
    Departure: the paper's estimator, selection and weights are not public. We count the discrete bits that the
    teacher's entropy model charges (differential entropy goes negative for narrow channels), and compare y before
    quantisation: between a noisy student and a rounded teacher the noise would count as an error. The controls `random`
    and `lowest` are ours.
    """

    class Config(distillkit.LossConfig):
        """Options.

        Attributes:
            select: `keep` takes the most informative channels that carry the share `keep`; `top` takes
                `num_channels` of them; `random` and `lowest` are controls that take as many
                channels at random or from the end of the ranking.
            keep: share of the bits, in (0, 1].
            num_channels: K of `top`, and of the controls; by default as many as `keep` takes.
            divide_by_variance: whether each channel's error is divided by the variance of the teacher's channel.
            calibration_crops: size of the calibration set.
            seed: of `random`.
        """

        select: Literal["keep", "top", "random", "lowest"] = "keep"
        keep: Annotated[float, Field(gt=0, le=1)] = 0.95
        num_channels: Annotated[int, Field(gt=0)] | None = None
        divide_by_variance: bool = False
        calibration_crops: Annotated[int, Field(gt=0)] = 64
        seed: int = 0

    needs_own_lmbda: ClassVar[bool] = True

    student_channels: Tensor
    teacher_channels: Tensor
    weights: Tensor  # (qualities, S)
    qualities: Tensor

    def __init__(self, config: Config, shapes: distillkit.TapShapes) -> None:
        """Check that the latents can be matched.

        Raises:
            ValueError: there is no latent tap, the student's latent is the wider one, or `top` lacks its number.
        """
        super().__init__(config, shapes)
        if "latent" not in shapes.student:
            raise ValueError(f"no tap 'latent' in both codecs; there are {', '.join(shapes.student) or 'none'}.")
        student, teacher = shapes.student["latent"], shapes.teacher["latent"]
        if student[1:] != teacher[1:]:
            raise ValueError(f"expected latents of one resolution, got {teacher} (teacher) and {student} (student).")
        if student.channels > teacher.channels:
            raise ValueError(
                f"expected a student's latent of at most {teacher.channels} channels (the teacher's), got "
                f"{student.channels}. Narrow the student's latent or widen the teacher's."
            )
        if config.select == "top" and config.num_channels is None:
            raise ValueError("select = 'top' needs num_channels.")
        self._num_student, self._num_teacher = student.channels, teacher.channels
        if config.num_channels is not None and config.num_channels > self._num_student:
            raise ValueError(f"num_channels: expected at most {self._num_student}, got {config.num_channels}.")
        self._calibrated = False
        # Not part of checkpoints: they follow from the calibration record in the run folder.
        for name, dtype in (
            ("student_channels", torch.long),
            ("teacher_channels", torch.long),
            ("weights", None),
            ("qualities", None),
        ):
            self.register_buffer(name, torch.zeros(0, dtype=dtype), persistent=False)

    def required_taps(self) -> set[str]:
        """Return the latent."""
        return {"latent"}

    @property
    def needs_calibration(self) -> bool:
        """True until the ranking is known."""
        return not self._calibrated

    @property
    def kept_channels(self) -> list[int] | None:
        """S, the most informative first; None before the ranking is known."""
        return self.teacher_channels.tolist() if self._calibrated else None

    def calibrate(self, calibration: distillkit.Calibration) -> dict[str, Any]:
        """Measure the bits per pixel of each of the teacher's latent channels, at each quality if there are several."""
        if not calibration.qualities:
            return {"bits_per_pixel": self._bits(calibration)}
        bits = [self._bits(calibration, quality) for quality in calibration.qualities]
        return {"qualities": list(calibration.qualities), "bits_per_pixel": bits}

    def _bits(self, calibration: distillkit.Calibration, *quality: float) -> list[float]:
        bits = torch.zeros(self._num_teacher, dtype=torch.float64)
        num_pixels = 0
        for images in calibration.batches(self.config.calibration_crops):
            likelihoods = calibration.teacher(images, *quality).likelihoods
            if "y" not in likelihoods or likelihoods["y"].shape[1] != self._num_teacher:
                raise distillkit.PairError(
                    f"feds.channel_entropy: expected the teacher's likelihoods of {self._num_teacher} latent channels "
                    f"as 'y', got {', '.join(f'{key} {tuple(each.shape)}' for key, each in likelihoods.items())}; "
                    "give the codec a distillkit.CodecAdapter that names them so."
                )
            likelihoods = likelihoods["y"]
            bits -= likelihoods.double().log2().sum(dim=(0, 2, 3)).cpu()
            num_pixels += images.shape[0] * images.shape[2] * images.shape[3]
        return (bits / num_pixels).tolist()

    def load_calibration(self, record: Mapping[str, Any]) -> None:
        """Rank the channels and choose S.

        Raises:
            ValueError: the record is of another number of channels, or its bits are not finite.
        """
        bits = torch.atleast_2d(torch.tensor(record["bits_per_pixel"], dtype=torch.float64))
        qualities = torch.tensor(record.get("qualities", [0.0]), dtype=torch.float32)
        if bits.shape != (len(qualities), self._num_teacher) or not bits.isfinite().all() or bool((bits < 0).any()):
            raise ValueError(f"expected finite bits of {self._num_teacher} channels, got shape {tuple(bits.shape)}")
        order = torch.argsort(bits.mean(dim=0), descending=True, stable=True)
        ranked = order[: self._num_student]
        weights = torch.stack([self._weights(each, ranked) for each in bits])
        chosen = ranked[(weights[:, ranked] >= 0).any(dim=0)]
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order))
        same_width = self._num_student == self._num_teacher
        device = self.weights.device
        self.teacher_channels = chosen.to(device)
        self.student_channels = (chosen if same_width else place[chosen]).to(device)
        self.weights = weights[:, chosen].clamp(min=0).float().to(device)
        self.qualities = qualities.to(device)
        self._calibrated = True

    def _weights(self, bits: Tensor, ranked: Tensor) -> Tensor:
        """Return w_c of every channel of the teacher, -1 outside of S, from its bits and those S is chosen among."""
        ranked = ranked[torch.argsort(bits[ranked], descending=True, stable=True)]
        chosen = ranked[self._select(bits[ranked])]
        shares, total = bits[chosen], bits[chosen].sum()
        uniform = torch.full_like(shares, 1 / len(shares))
        return torch.full_like(bits, -1).index_copy(0, chosen, shares / total if total > 0 else uniform)

    def _select(self, ranked_bits: Tensor) -> Tensor:
        """Return places in the ranking, given the bits in falling order."""
        shares = ranked_bits.cumsum(0) / ranked_bits.sum().clamp_min(math.ulp(1.0))
        num_kept = min(int((shares < self.config.keep).sum()) + 1, len(ranked_bits))
        number = self.config.num_channels or num_kept
        if self.config.select == "lowest":
            return torch.arange(len(ranked_bits) - number, len(ranked_bits))
        if self.config.select == "random":
            generator = torch.Generator().manual_seed(self.config.seed)
            return torch.randperm(len(ranked_bits), generator=generator)[:number].sort().values
        return torch.arange(number if self.config.select == "top" else num_kept)

    def forward(self, step: distillkit.Step) -> Tensor:
        """Return the weighted squared error."""
        student, teacher = step.taps["latent"]
        student = student.float().index_select(1, self.student_channels)
        teacher = teacher.float().index_select(1, self.teacher_channels)
        positions = (2, 3) if step.quality is not None else (0, 2, 3)
        errors = (student - teacher).square().mean(dim=positions).reshape(-1, len(self.student_channels))
        if self.config.divide_by_variance:
            errors = errors / distillkit.batch_variance(teacher).clamp_min(1e-6)
        return (self._weights_at(step.quality) * errors).sum(dim=1).mean()

    def _weights_at(self, quality: Tensor | None) -> Tensor:
        """Return the weights of S for each image, shape (B, S); (1, S) for a student of one rate."""
        if quality is None:
            return self.weights[:1]
        above = torch.searchsorted(self.qualities, quality).clamp(1, len(self.qualities) - 1)
        low, high = self.qualities[above - 1], self.qualities[above]
        return torch.lerp(self.weights[above - 1], self.weights[above], ((quality - low) / (high - low))[:, None])
