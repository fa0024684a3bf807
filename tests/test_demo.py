"""The demo's pictures and recipes; and the example, which is the same job written out."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image

import distillkit
from distillkit import demo
from distillkit.data.images import check_images, read_image
from distillkit.data.listing import list_images
from distillkit.errors import DataError
from distillkit.evaluation.first_look import first_look
from distillkit.recipe.shipped import load_shipped
from distillkit.training.setup.resolve import resolve

SIZES = get_args(demo.Size)
EXAMPLE = Path(__file__).parents[1] / "examples" / "feds_cheng2020.py"


def picture(path: Path, value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 6, 3), value, np.uint8)).save(path)
    return path


@pytest.fixture
def own(tmp_path) -> Path:
    """Thirteen pictures in nested folders, two of one name."""
    for number in range(11):
        picture(tmp_path / "own" / "a" / f"{number:02}.png", number)
    picture(tmp_path / "own" / "b" / "c" / "00.png", 100)
    picture(tmp_path / "own" / "z.png", 101)
    (tmp_path / "own" / "notes.txt").write_text("not a picture")
    return tmp_path / "own"


def names(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in list_images(folder)]


def test_packaged_photographs(tmp_path):
    train, held_out = demo.gather_images(tmp_path)
    assert train == tmp_path / "train"
    assert len(list_images(train)) == 6
    assert [path.name for path in held_out] == ["astronaut.png", "flower.jpg"]
    check_images([*list_images(train), *held_out], min_side=256)  # the largest crop of the demo
    assert not {path.resolve() for path in list_images(train)} & {path.resolve() for path in held_out}


def test_own_pictures(tmp_path, own):
    train, held_out = demo.gather_images(tmp_path / "images", own)
    everything = names(own)
    assert everything == [*(f"a/{n:02}.png" for n in range(11)), "b/c/00.png", "z.png"]
    assert [path.relative_to(tmp_path / "images/held_out").as_posix() for path in held_out] == everything[::10]
    assert names(train) == [name for index, name in enumerate(everything) if index % 10]
    assert read_image(train / "b/c/00.png").max() == 100
    assert read_image(held_out[0]).max() == 0


def test_own_pictures_of_other_kinds(tmp_path):
    (tmp_path / "own").mkdir()
    for number, kind in enumerate(["L", "LA", "P", "RGBA", "I;16"]):
        Image.fromarray(np.full((256, 256), 99, np.uint8)).convert(kind).save(tmp_path / "own" / f"{number}.png")
    train, held_out = demo.gather_images(tmp_path / "images", tmp_path / "own")
    assert read_image(held_out[0]).shape == (256, 256, 3)
    for recipe in demo.recipes("tiny", train):
        check_images(list_images(train), min_side=recipe.data.crop, convert=recipe.data.convert)


@pytest.mark.parametrize(("total", "expected"), [(2, 1), (10, 1), (11, 2), (240, 24), (241, 22), (500, 24)])
def test_a_tenth_is_held_out_but_at_most_24(tmp_path, total, expected):
    first = picture(tmp_path / "own" / "000.png")
    for number in range(1, total):
        (tmp_path / "own" / f"{number:03}.png").symlink_to(first)
    train, held_out = demo.gather_images(tmp_path / "images", tmp_path / "own")
    assert len(held_out) == expected
    assert len(list_images(train)) == total - expected


def test_again_with_other_pictures(tmp_path, own):
    demo.gather_images(tmp_path / "images", own)
    (own / "z.png").unlink()
    train, held_out = demo.gather_images(tmp_path / "images", own)
    assert names(train) == [name for index, name in enumerate(names(own)) if index % 10]
    train, held_out = demo.gather_images(tmp_path / "images")
    assert (len(list_images(train)), len(held_out)) == (6, 2)
    assert len(names(own)) == 12


def test_relative_folder_of_links(tmp_path, own, monkeypatch):
    (tmp_path / "links").mkdir()
    for number, path in enumerate(list_images(own)):
        (tmp_path / "links" / f"{number}.png").symlink_to(path)
    monkeypatch.chdir(tmp_path)
    train, held_out = demo.gather_images(Path("images"), Path("links"))
    assert (len(list_images(train)), len(held_out)) == (11, 2)
    assert all(path.resolve().is_relative_to(own) for path in list_images(train))


@pytest.mark.parametrize("number", [0, 1])
def test_too_few(tmp_path, number):
    (tmp_path / "own").mkdir()
    for index in range(number):
        picture(tmp_path / "own" / f"{index}.png")
    with pytest.raises(DataError, match="expected"):
        demo.gather_images(tmp_path / "images", tmp_path / "own")
    assert not (tmp_path / "images").exists()


def test_missing_folder(tmp_path):
    with pytest.raises(DataError, match="nothing there"):
        demo.gather_images(tmp_path / "images", tmp_path / "nowhere")


@pytest.mark.parametrize("data", [True, False])
def test_the_users_own_files_are_never_deleted(tmp_path, own, data):
    """With --out beside them, the demo's folder of links may be where the user's pictures are."""
    shutil.move(own, tmp_path / "images" / "train")
    before = {path: path.read_bytes() for path in list_images(tmp_path / "images")}
    with pytest.raises(DataError, match="it is kept"):
        demo.gather_images(tmp_path / "images", tmp_path / "images" / "train" if data else None)
    assert {path: path.read_bytes() for path in list_images(tmp_path / "images")} == before


def test_copies_on_a_file_system_without_links_are_taken_again(tmp_path, own):
    train, _ = demo.gather_images(tmp_path / "images", own)
    for path in list_images(tmp_path / "images"):
        source = path.resolve()
        path.unlink()
        shutil.copy2(source, path)
    again, _ = demo.gather_images(tmp_path / "images", own)
    assert names(again) == names(train)


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("feds_cheng2020_example", EXAMPLE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("size", SIZES)
def test_the_example_is_the_recipes_that_ship(example, size, tmp_path):
    plugins = distillkit.load_plugins()
    trained = {"teacher": tmp_path / "teacher/model.safetensors"}
    written_out = (
        example.recipe(size, tmp_path, "teacher"),
        example.recipe(size, tmp_path, "student", **example.feds(size)).model_copy(update=trained),
    )
    teacher, student = (load_shipped(f"cheng2020-{size}", part, tmp_path) for part in ("teacher", "student"))
    shipped = (teacher, student.model_copy(update=trained))
    for one, other in zip(written_out, shipped, strict=True):
        any_kind = other.model_copy(update={"data": other.data.model_copy(update={"convert": True})})
        assert resolve(one, plugins).to_toml() == resolve(any_kind, plugins).to_toml()
    assert student.losses.keys() == {"feds.alignment", "feds.channel_entropy"}


def test_sizes_are_the_same_everywhere(example):
    pair = distillkit.load_plugins().components["pair"]["models.cheng2020"]
    field = pair.Config.model_fields["size"]
    assert set(SIZES) == set(example.SCALES) == set(field.annotation.__args__)


def test_example_is_short():
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) <= 150


def test_what_would_end_the_job_late_is_said_at_once(tmp_path, own):
    train, held_out = demo.gather_images(tmp_path / "images", own)
    teacher, student = demo.recipes("tiny", train)
    Image.fromarray(np.zeros((4, 6), np.uint8)).save(own / "grey.png")

    def distil(**changes):
        arguments = {"teacher": teacher, "student": student, "images": held_out} | changes
        with pytest.raises(distillkit.DistillkitError) as caught:
            distillkit.distil_recipes(folder=tmp_path / "runs", **arguments)
        assert not (tmp_path / "runs").exists()
        return str(caught.value)

    assert "greyscale" in distil(images=[*held_out, own / "grey.png"])
    assert "expected at least one" in distil(images=[])
    assert "Did you mean 'feds.alignment'" in distil(student=student.model_copy(update={"losses": {"feds.align": {}}}))
    assert "no such file" in distil(teacher=tmp_path / "nowhere.safetensors")
    assert "losses to distil with" in distil(student=student.model_copy(update={"losses": {}}))


def test_pictures_that_cannot_be_used_are_all_named_before_anything_is_made(tmp_path, own):
    (own / "empty.png").write_bytes(b"")
    (own / "junk.png").write_bytes(b"junk")
    with pytest.raises(DataError, match=r"(?s)got 2 that cannot be used.*own/empty.png: .*own/junk.png: "):
        demo.gather_images(tmp_path / "images", own)
    assert not (tmp_path / "images").exists()


@pytest.mark.slow
def test_the_first_look_puts_the_student_beside_jpeg_and_webp_at_equal_size(tmp_path, photographs):
    look = first_look(demo.SHOWN, sorted(photographs.iterdir())[:2], tmp_path / "look")
    assert list(look.results) == [demo.SHOWN, "JPEG", "WebP"]
    ours, jpeg, webp = look.results.values()
    for mine, other in zip(ours * 2, jpeg + webp, strict=True):
        title = "JPEG" if other in jpeg else "WebP"
        file = tmp_path / "look" / title / f"{other.name}.{title.lower()}"
        assert other.source == mine.source
        assert other.file_bytes <= mine.file_bytes or other.psnr_db < mine.psnr_db  # or the lowest quality there is
        assert file.stat().st_size == other.file_bytes
    assert [row.psnr_db > 20 for row in ours] == [True, True]
    assert look.picture.exists()
    assert len(look.table().rows) == 3


def test_a_folder_that_cannot_be_written(own):
    if not Path("/sys").is_dir():
        pytest.skip("no /sys, where nobody may write")
    with pytest.raises(DataError, match=r"folder /sys/demo: cannot be written: .*choose another folder.*--out"):
        demo.gather_images(Path("/sys/demo"), own)
