"""Files that are written whole or not at all."""

import os
import stat

import pytest

from structdl.files import append, fill_whole, remove, write_whole


def test_a_link_is_replaced_and_its_target_stays(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("precious")
    link.symlink_to(target)
    with pytest.raises(OSError, match="symbolic link"):
        append(link, "more")
    write_whole(link, "new")
    assert (target.read_text(), link.read_text()) == ("precious", "new")
    assert not link.is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "target"]


def test_what_fails_leaves_everything_as_it_was(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "report").write_text("old")
    with pytest.raises(OSError, match="folder"):
        write_whole(folder, "a file in place of a folder")

    def fail():
        with fill_whole(folder) as fresh:
            (fresh / "report").write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert (folder / "report").read_text() == "old"
    assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_that_is_a_link_is_filled_where_it_lies(tmp_path):
    disk, link = tmp_path / "disk", tmp_path / "study"
    disk.mkdir()
    (disk / "runs").write_text("precious")
    link.symlink_to(disk)
    with fill_whole(link, within=link) as fresh:
        assert fresh.parent == link
        (fresh / "report").write_text("new")
    assert link.is_symlink()
    assert sorted(path.name for path in disk.iterdir()) == ["report", "runs"]


def test_files_have_the_permissions_that_others_have(tmp_path):
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "file", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_removing_a_link_keeps_its_target(tmp_path):
    folder, link = tmp_path / "folder", tmp_path / "link"
    (folder / "below").mkdir(parents=True)
    link.symlink_to(folder)
    for path in (link, tmp_path / "none"):
        remove(path)
    assert list(tmp_path.iterdir()) == [folder]
    remove(folder)
    assert not list(tmp_path.iterdir())
