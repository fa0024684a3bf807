"""The training crops of a run."""

from __future__ import annotations

from ...data.crops import CropDataset
from ...data.images import survey
from ...data.samples import Samples
from ...data.shards import list_training_images
from ...recipe.recipe import Recipe


def training_crops(recipe: Recipe, largest_crop: int, samples: Samples) -> tuple[CropDataset, list[str]]:
    """Return the training crops, and notes on the images: which are left out, how many are converted.

    Args:
        recipe: of the run.
        largest_crop: of its phases, in pixels; images that are smaller are left out if bad ones are.
        samples: what the codec takes.
    """
    settings = recipe.data
    paths, left_out = list_training_images(settings.train)
    notes = [left_out] if left_out else []
    skip_bad = settings.bad_images == "skip"
    if skip_bad or settings.convert:
        problems, converted = survey(paths, largest_crop, convert=settings.convert, samples=samples)
        if converted:
            kinds = ", ".join(f"{kind} ({count})" for kind, count in converted.most_common())
            notes.append(f"converted to {samples}: {converted.total()} of {len(paths)} pictures: {kinds}")
        if skip_bad:
            notes += [f"left out: {problem}" for problem in problems]
            bad = {problem.path for problem in problems}
            paths = sorted(path for path in paths if path not in bad)
    kind = (skip_bad, settings.convert, settings.num_crops, samples)
    dataset = CropDataset(paths, settings.crop, recipe.seed, settings.cache_mib, *kind)
    return dataset, notes + [f"left out: {problem}" for problem in dataset.problems.values()]
