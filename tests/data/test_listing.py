"""Which files of a folder count as pictures, and that what is left out is reported, once and with its count."""

from __future__ import annotations

import os

import pytest
from PIL import Image

from distillkit.data.listing import find_images, list_images, mark_output
from distillkit.data.shards import list_training_images
from distillkit.errors import DataError


@pytest.fixture
def tree(tmp_path):
    def make(*names):
        for name in names:
            path = tmp_path / "root" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8)).save(path, "png")
        return tmp_path / "root"

    return make


def names(folder, **options):
    return [path.relative_to(folder).as_posix() for path in find_images(folder, **options).paths]


def test_every_suffix_in_sorted_order(tree):
    files = ["b.PNG", "a.jpg", "sub/c.Webp", "sub/a.tiff", "d.bmp", "e.avif", "f.jpeg", "g.tif", "h.JFIF", "i.ppm"]
    files += ["j.jp2", "k.gif", "l.pgm", "m.jpe", "n.mpo"]
    folder = tree(*files)
    assert find_images(folder) == ([folder / name for name in sorted(files)], "")


def test_missing_and_empty_folders_say_what_was_looked_for(tree, tmp_path):
    with pytest.raises(DataError, match=r"nowhere: expected a folder, got nothing there; check the path"):
        list_images(tmp_path / "nowhere")
    with pytest.raises(DataError, match="got a file"):
        list_images(tree("a.png") / "a.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"\.jpg, .*\.png, .*got none.*put images there\.$"):
        list_images(tmp_path / "empty")
    (tmp_path / "empty" / "a.heic").touch()
    with pytest.raises(DataError, match=r"got none.*What is there is left out: \.heic \(1\)$"):
        list_images(tmp_path / "empty")


def test_what_is_left_out_is_reported_once_with_its_count(tree, caplog):
    folder = tree(
        "a.png",
        "._a.png",
        ".hidden/b.png",
        "@eaDir/a.png/thumb.jpg",
        "__MACOSX/a.png",
        "c.heic",
        "sub/d.heic",
        "e.HEIC",
        "archive.tar",
        "README",
    )
    (folder / "gone.png").symlink_to("nowhere.png")
    os.mkfifo(folder / "pipe.png")
    assert list_images(folder) == [folder / "a.png"]
    assert [record.getMessage() for record in caplog.records] == [
        f"images {folder}: 11 files or folders are left out: hidden folders (3), .heic (3), broken links or special "
        "files (2), hidden files (1), .tar (1), ..."
    ]
    caplog.clear()
    list_images(tree("only/x.png") / "only")
    assert not caplog.records


def test_a_stray_tar_replaces_no_photographs(tree):
    folder = tree("a.png", "b.png", "archive.tar")
    images = list_training_images(folder)
    assert images.images == [folder / "a.png", folder / "b.png"]
    assert images.left_out == f"images {folder}: 1 files or folders are left out: .tar (1)"


def test_linked_folders_count_once(tree, tmp_path):
    folder = tree("a/x.png")
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "elsewhere" / "deep" / "y.png")
    (folder / "0-link").symlink_to(tmp_path / "elsewhere")
    (folder / "1-again").symlink_to(tmp_path / "elsewhere" / "deep")
    (folder / "2-inside").symlink_to(folder / "a")
    (folder / "a" / "loop").symlink_to(folder)
    (tmp_path / "elsewhere" / "up").symlink_to(tmp_path)
    assert names(folder) == ["0-link/deep/y.png", "a/x.png"]


def test_a_linked_folder_may_be_the_root_and_files_may_be_links(tree, tmp_path):
    folder = tree("x.png")
    (folder / "y.png").symlink_to("x.png")
    (tmp_path / "link").symlink_to(folder)
    assert names(tmp_path / "link") == ["x.png", "y.png"]


def test_folders_that_distillkit_wrote_are_no_data(tree):
    folder = tree("x.png", "runs/evaluation/student/x.png", "other/x.png")
    mark_output(folder / "runs" / "evaluation")
    paths, left_out = find_images(folder)
    assert paths == [folder / "other/x.png", folder / "x.png"]
    assert left_out.endswith("folders written by distillkit (1)")
    assert names(folder / "runs/evaluation") == ["student/x.png"]  # asked for by name
    assert names(folder, leave_out=[folder / "runs" / ".." / "other"]) == ["x.png"]


def test_folders_that_cannot_be_read_are_reported(tree, monkeypatch):
    folder = tree("x.png", "locked/y.png")
    scandir = os.scandir

    def refuse(path):
        if os.fspath(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)  # root may read every folder
    assert find_images(folder) == (
        [folder / "x.png"],
        f"images {folder}: 1 files or folders are left out: folders that cannot be read (1)",
    )


def test_names_that_are_not_utf8(tree):
    folder = tree("x.png")
    os.rename(folder / "x.png", os.fsencode(folder) + b"/\xff[b].png")
    assert [os.fsencode(path.name) for path in find_images(folder).paths] == [b"\xff[b].png"]
