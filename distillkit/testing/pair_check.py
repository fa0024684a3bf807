"""The check of a pair: every failure that a codec can have in training, coding or evaluation, in one report."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, final

import numpy as np
import torch

from ..codec.runtime import ImageCodec
from ..hooks.loader import Plugins, load_plugins
from ..model.adapters import CodecAdapter, as_codec, fingerprint
from ..model.complexity import kmac_per_pixel
from ..model.conditioned import ConditionedAdapter, at_quality
from ..model.file import fit_tables, restore_tables
from ..taps.pair import CodecPair, TeachingPair
from ..taps.provider import find_taps
from ..training.objectives.objective import rate_distortion
from ..training.random_state import seed_everything
from .kit import checked_config

_SIDES = (64, 128, 256, 512)  # of pictures that a codec may need at least
_WRAP = "return distillkit.CompressAIAdapter(codec, stride={side}) from the pair"


def check_pair(pair: type[CodecPair], *, size: int = 64, plugins: Plugins | None = None, **options: Any) -> None:
    """Check a pair: both codecs train, compress to bytes, decode, load again and are measured; taps and latents fit.

    One run finds every failure, and reports each on one line with what to do.

    Args:
        pair: the class.
        size: side of the square test images in pixels; larger ones are taken where a codec needs them.
        plugins: has the provider of taps; by default the installed plugins.
        options: of its `Config`.

    Raises:
        AssertionError: something fails.
    """
    name = pair.__name__
    built = pair(checked_config(pair.Config, options, name))
    problems: list[str] = []
    codecs = {
        part: _Codec(f"{part}", build, size, problems).checked()
        for part, build in (("teacher", built.build_teacher), ("student", built.build_student))
    }
    teacher, student = codecs["teacher"], codecs["student"]
    if teacher is not None and student is not None:
        side = max(size, teacher.stride, student.stride)
        with _noted(problems, "taps", "name them in teacher_taps and student_taps"):
            _check_taps(built, teacher, student, side, plugins or load_plugins(), problems)
    lines = "".join(f"\n  - {' '.join(problem.split())}" for problem in problems)
    if problems:
        expected = f"{name}: expected a pair that trains, codes and is measured"
        raise AssertionError(f"{expected}, got {len(problems)} failures:{lines}")


def _check_taps(
    built: CodecPair, teacher: CodecAdapter, student: CodecAdapter, side: int, plugins: Plugins, problems: list[str]
) -> None:
    provider_class, config = plugins.configure("taps", "models.by_resolution", {}, "check_pair")
    sides = {"teacher": (built.teacher_taps(), teacher), "student": (built.student_taps(), student)}
    taps: list[Any] = []
    for part, (given, codec) in sides.items():
        taps.append(given or find_taps(codec, provider_class(config), (side, side)))
        kinds = {role.partition(".")[0] for role in taps[-1]}
        missing = ["analysis", "synthesis"] if not kinds & {"analysis", "synthesis"} else []
        missing += [] if kinds & {"latent", "quantised_latent"} else ["latent"]  # a light decoder has the second only
        if missing:
            problems.append(
                f"{part}: expected taps {', '.join(missing)}, for FEDS, found {', '.join(taps[-1]) or 'none'}; "
                f'return them from {part}_taps, for example {{"analysis.1/4": "encoder.1", "latent": "encoder"}}'
            )
    teaching = TeachingPair(teacher, student, (taps[0], taps[1]))
    shapes = teaching.probe((side, side)).shapes
    if not shapes.student:
        problems.append("taps: expected some that both sides have, got none; give them the same roles on both sides")
        return
    features = teaching.run_teacher(torch.rand(1, teacher.samples.channels, side, side), list(shapes.teacher))
    if any(tensor.requires_grad for tensor in features.values()):
        problems.append(
            "teacher: expected it frozen, got features with a gradient; do not call requires_grad_ in forward"
        )


@final
class _Codec:
    """One side's checks; what fails is added to `problems`, and the other checks continue."""

    def __init__(self, part: str, build: Callable[[], Any], size: int, problems: list[str]) -> None:
        self._part, self._build, self._size, self._problems = part, build, size, problems

    def checked(self) -> CodecAdapter | None:
        """Return the codec after all checks, or None if it cannot be built or run."""
        codec = self._built()
        if codec is None or not self._find_side(codec):
            return None
        self._train(codec)
        with self._noted("update", "correct the adapter's update"):
            codec.update()
        codec.module.eval()
        for quality in (0.0, 0.3, 1.0) if isinstance(codec, ConditionedAdapter) else (None,):
            self._code(at_quality(codec, quality), at_quality(self._fresh, quality))
        if torch.cuda.is_available():
            with self._noted("on the GPU", "make tensors on the input's device"):
                codec.module.cuda()
                codec.forward(torch.rand(1, codec.samples.channels, self._size, self._size, device="cuda"))
            codec.module.cpu()
        return codec

    def _noted(self, what: str, fix: str) -> Any:
        return _noted(self._problems, f"{self._part}: {what}", fix)

    def _built(self) -> CodecAdapter | None:
        twice: list[CodecAdapter] = []
        for _ in range(2):
            with self._noted(f"build_{self._part}", "correct it"):
                seed_everything(0)
                twice.append(as_codec(self._build()))
        if len(twice) < 2:
            del self._problems[-1]  # the same, twice
            return None
        first, second = (codec.module.state_dict() for codec in twice)
        if first.keys() != second.keys() or not all(torch.equal(first[key], second[key]) for key in first):
            self._problems.append(
                f"{self._part}: expected initial weights that follow from the seed, got others; draw with torch's, "
                "NumPy's or Python's own generator"
            )
        self._fresh = twice[1]
        return twice[0]

    def _find_side(self, codec: CodecAdapter) -> bool:
        """Find the smallest picture that the codec takes."""
        least = max(self._size, codec.stride)
        errors: list[Exception] = []
        for side in (least, *(side for side in _SIDES if side > least)):
            try:
                with torch.no_grad():
                    codec.module.eval()
                    codec.forward(torch.rand(1, codec.samples.channels, side, side))
            except Exception as error:  # whatever the codec raises
                errors.append(error)
                continue
            if errors:
                fix = _WRAP.format(side=side)
                self._problems.append(
                    f"{self._part}: expected pictures of {least}x{least}, got {_said(errors[0])}; it takes "
                    f"{side}x{side}: {fix}"
                )
                codec.stride = self._fresh.stride = side
            self._size = side
            return True
        said = list(dict.fromkeys(map(_said, (errors[0], errors[-1]))))
        last = f", and with {_SIDES[-1]}x{_SIDES[-1]} {said[1]}" if len(said) > 1 else ""
        self._problems.append(
            f"{self._part}: forward: {said[0]}{last}; correct it, no picture up to {_SIDES[-1]} is taken"
        )
        return False

    def _train(self, codec: CodecAdapter) -> None:
        images = torch.rand(2, codec.samples.channels, self._size, self._size)
        before = [parameter.detach().clone() for parameter in codec.module.parameters()]
        with self._noted("a training step", "correct forward in training mode"):
            codec.module.train()
            optimizer = torch.optim.Adam(codec.module.parameters(), 1e-3)
            output = codec.forward(images)
            if isinstance(codec, ConditionedAdapter):
                codec.forward(images, torch.tensor([0.0, 1.0]))
            if "y" not in output.likelihoods or output.likelihoods["y"].ndim != 4:
                self._problems.append(
                    f"{self._part}: expected likelihoods of the latent as 'y', shape (B, C, h, w), got "
                    f"{', '.join(output.likelihoods)}; name them so in a distillkit.CodecAdapter"
                )
            rate_distortion(output, images, 0.01).cost.backward()
            optimizer.step()
            if not any(not torch.equal(a, b) for a, b in zip(before, codec.module.parameters(), strict=True)):
                self._problems.append(
                    f"{self._part}: a training step changed no parameter; is the graph cut, or all frozen?"
                )
            if (codec.aux_loss() is not None) != bool(codec.quantile_parameters()):
                self._problems.append(f"{self._part}: aux_loss and quantile_parameters do not agree; give both or none")
        with self._noted(
            "a training step in bfloat16",
            'train with precision = "fp32", keep its tensors of one type, or turn autocast off in its forward',
        ):
            with torch.autocast("cpu", torch.bfloat16):
                output = codec.forward(images)
            rate_distortion(output, images, 0.01).cost.backward()
        codec.module.zero_grad()

    @torch.no_grad()
    def _code(self, codec: CodecAdapter, fresh: CodecAdapter) -> None:
        samples = codec.samples
        image = torch.rand(1, samples.channels, self._size, self._size)
        with self._noted("compress and decompress", "correct them, or wrap the codec in a distillkit.CodecAdapter"):
            latents = codec.compress(image)
            decoded = codec.decompress(latents)
            if decoded.shape != image.shape:
                self._problems.append(
                    f"{self._part}: decoded {tuple(decoded.shape)} from {tuple(image.shape)}; return that size"
                )
            elif not torch.equal(decoded, codec.decompress(latents)):
                self._problems.append(
                    f"{self._part}: the same bytes decode to two images; decompress must not be random"
                )
            with self._noted("loading its state into a new one", "keep tables in buffers, or compute them in update()"):
                state = copy.deepcopy(codec.module.state_dict())
                fit_tables(fresh.module, state)
                fresh.module.load_state_dict(state)
                restore_tables(fresh, state)
                fresh.module.eval()
                if not torch.equal(decoded, fresh.decompress(latents)):
                    self._problems.append(
                        f"{self._part}: decodes to another image once its state is loaded into a new one; keep all "
                        "that it needs in parameters and buffers, or compute it in update()"
                    )
        shape = (self._size - 3, self._size + 5, samples.channels)
        picture = np.random.default_rng(0).integers(0, samples.peak + 1, shape, dtype=samples.dtype)
        for precision in ("fp32", "bf16"):
            with self._noted(f"files in {precision}", "correct compress and decompress"):
                coder = ImageCodec(codec, fingerprint(codec.module), precision=precision, trusted=True)  # type: ignore[arg-type]
                coder.decode(coder.encode(picture))
                if coder.needs_trust and precision == "fp32":
                    self._problems.append(
                        f"{self._part}: {coder.note} Let it code by CompressAI's classes, under their names"
                    )
                elif coder.note is not None and precision == "fp32":
                    warnings.warn(f"{self._part}: {coder.note}", stacklevel=2)
        with self._noted("counting its arithmetic", "`distillkit evaluate` would fail there"):
            kmac_per_pixel(codec, self._size)


@contextmanager
def _noted(problems: list[str], what: str, fix: str) -> Generator[None]:
    """Make a line of whatever is raised inside."""
    try:
        yield
    except Exception as error:  # whatever foreign code raises
        problems.append(f"{what}: {_said(error)}; {fix}")


def _said(error: Exception) -> str:
    first = str(error).strip().partition("\n")[0].rstrip(".")
    return f"{type(error).__name__}: {first}"
