"""A mounted share is told from an empty mount point, with real mounts.

The kernel of a build machine has no cifs: a tmpfs stands for the mounted share. What counts is the kernel's mount.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from configs.problems import UserError
from infra.samba.sentinel import SENTINEL, check_mounted, find_sentinel, read_sentinel, write_sentinel


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A mount point with a filesystem of its own."""
    point = tmp_path / "mnt"
    point.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(point)], check=True, capture_output=True)
    yield point
    subprocess.run(["umount", "--lazy", str(point)], check=False, capture_output=True)


def test_a_mounted_share_is_there_and_an_unmounted_one_is_not(mounted: Path) -> None:
    write_sentinel(mounted, "sambashare")
    check_mounted(mounted, "sambashare")
    subprocess.run(["umount", str(mounted)], check=True)
    with pytest.raises(UserError, match="empty mount point: //storage/sambashare is not mounted"):
        check_mounted(mounted, "sambashare", "//storage/sambashare")


def test_another_filesystem_in_its_place_is_told(mounted: Path) -> None:
    with pytest.raises(UserError, match=f"is mounted, but holds no {SENTINEL}"):
        check_mounted(mounted, "sambashare")
    write_sentinel(mounted, "backup")
    with pytest.raises(UserError, match="is the share backup, not sambashare"):
        check_mounted(mounted, "sambashare")


def test_a_mount_point_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no folder"):
        check_mounted(tmp_path / "nowhere", "sambashare")


def test_a_share_is_marked_once(tmp_path: Path) -> None:
    first = write_sentinel(tmp_path, "sambashare")
    written = first.stat().st_mtime_ns, first.read_text()
    write_sentinel(tmp_path, "sambashare")
    assert (first.stat().st_mtime_ns, first.read_text()) == written
    with pytest.raises(UserError, match="marks another share, sambashare"):
        write_sentinel(tmp_path, "backup")
    assert [path.name for path in tmp_path.iterdir()] == [SENTINEL]


def test_the_share_of_a_folder_is_found_above_it(tmp_path: Path) -> None:
    folder = tmp_path / "dvc" / "team"
    folder.mkdir(parents=True)
    assert find_sentinel(folder) is None
    write_sentinel(tmp_path, "sambashare")
    assert find_sentinel(folder) == (tmp_path, "sambashare")


@pytest.mark.parametrize("text", ["", "sambashare", "[]", '{"share": "sambashare"}', '{"share": "s", "format": 2}'])
def test_what_is_no_sentinel_is_told(text: str, tmp_path: Path) -> None:
    (tmp_path / SENTINEL).write_text(text)
    with pytest.raises(UserError, match=r"is no sentinel|update the project"):
        read_sentinel(tmp_path)


def test_a_folder_that_cannot_be_marked_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="existing folder that you may write to"):
        write_sentinel(tmp_path / "nowhere", "sambashare")
    with pytest.raises(UserError, match="is no id"):
        write_sentinel(tmp_path, "a share\n")
