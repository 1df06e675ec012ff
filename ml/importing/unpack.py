"""A folder or zip from outside, read with distrust: nothing leaves its place, nothing fills the disk."""

from __future__ import annotations

import os
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from configs.problems import Problem, UserError
from ml.dataset.layout import IMAGE_SUFFIXES

READ_SUFFIXES = IMAGE_SUFFIXES | {".txt", ".yaml", ".yml", ".json"}
MAX_BYTES = 50 * 2**30
# Images hardly shrink; text at most some thirtyfold. A whole archive far above that was made to fill a disk.
MAX_RATIO = 100
_FREE_RATIO_BYTES = 16 * 2**20


def member_path(name: str) -> PurePosixPath:
    """The path, from the folder unpacked to, of the archive member ``name``.

    Raises:
        ValueError: with the reason, when the name would lead out of that folder or fits no file system.
    """
    if "\\" in name or (len(name) > 1 and name[1] == ":"):
        raise ValueError("is a Windows path")
    if name.startswith("/"):
        raise ValueError("is an absolute path")
    if any(ord(character) < 32 for character in name):
        raise ValueError("holds control characters")
    path = PurePosixPath(name)
    if ".." in path.parts:
        raise ValueError("leads out of the archive's folder")
    if not path.parts:
        raise ValueError("is empty")
    try:
        too_long = any(len(part.encode("utf-8")) > 255 for part in path.parts)
    except UnicodeEncodeError:
        raise ValueError("is no valid Unicode") from None
    if too_long:
        raise ValueError("has a part of more than 255 bytes")
    return path


def unpack(archive: Path, folder: Path, max_bytes: int = MAX_BYTES) -> Path:
    """Unpack the images, labels and descriptions of ``archive`` below ``folder``; other members are skipped.

    Raises:
        UserError: the archive is no zip, is damaged or encrypted, holds links, names that lead out of it or come
            twice, or more than ``max_bytes`` (declared or real); lists all such members.
    """
    problems: list[Problem] = []
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [info for info in opened.infolist() if not info.is_dir()]
            _refuse_bomb(archive, members, max_bytes)
            left = max_bytes
            for info in members:
                where = f"{archive}: {info.filename!r}"
                try:
                    path = member_path(info.filename)
                except ValueError as error:
                    problems.append(Problem(where, str(error), "pack the dataset again with plain relative names"))
                    continue
                if stat.S_ISLNK(info.external_attr >> 16):
                    problems.append(Problem(where, "is a symbolic link", "pack the file itself"))
                elif info.flag_bits & 1:
                    problems.append(Problem(where, "is encrypted", "pack the dataset without a password"))
                elif path.suffix.lower() in READ_SUFFIXES and not _is_litter(path):
                    try:
                        left -= _extract(opened, info, folder / path, left)
                    except FileExistsError:
                        problems.append(Problem(where, "is in the archive twice", "keep one of the two"))
                    except (zipfile.BadZipFile, NotADirectoryError, EOFError, zlib.error) as error:
                        problems.append(Problem(where, f"is damaged: {error}", "get the archive again"))
    except zipfile.BadZipFile as error:
        raise UserError(Problem(str(archive), f"is no sound zip file: {error}", "get the archive again")) from None
    except NotImplementedError as error:
        raise UserError(Problem(str(archive), f"cannot be unpacked: {error}", "pack it as a plain zip")) from None
    except OSError as error:
        raise UserError(
            Problem(str(archive), f"cannot be unpacked: {error.strerror}", "make room on the disk")
        ) from None
    if problems:
        raise UserError(problems)
    return folder


def check_folder(source: Path) -> list[Problem]:
    """Symbolic links below ``source`` that lead out of it."""
    root = source.resolve()
    found = []
    for folder, folders, files in os.walk(source):
        for name in sorted(folders + files):
            path = Path(folder) / name
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                found.append(Problem(str(path), "is a link that leads out of the dataset", "put the file itself there"))
    return found


def content_root(folder: Path) -> Path:
    """``folder``, or the one folder in it that holds everything, as archives often have it."""
    while True:
        inside = [path for path in folder.iterdir() if not _is_litter(PurePosixPath(path.name))]
        if len(inside) != 1 or not inside[0].is_dir() or inside[0].is_symlink():
            return folder
        folder = inside[0]


def _refuse_bomb(archive: Path, members: list[zipfile.ZipInfo], max_bytes: int) -> None:
    declared, packed = sum(info.file_size for info in members), max(1, archive.stat().st_size)
    if declared > max_bytes:
        told = f"would unpack to {declared / 2**30:.1f} GiB, allowed are {max_bytes / 2**30:.1f}"
        raise UserError(Problem(str(archive), told, "unpack it yourself and import the folder"))
    if declared > max(packed * MAX_RATIO, _FREE_RATIO_BYTES):
        told = f"would unpack to {declared // packed} times its size, as no archive of images does"
        raise UserError(Problem(str(archive), told, "unpack it yourself and import the folder"))


def _extract(opened: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, left: int) -> int:
    """Write one member, at most as many bytes as it declares and ``left`` allows; return how many."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with path.open("xb") as file, opened.open(info) as member:
        while block := member.read(1 << 20):
            written += len(block)
            if written > min(left, info.file_size):
                raise zipfile.BadZipFile(f"member {info.filename!r} is larger than it declares or than is allowed")
            file.write(block)
    return written


def _is_litter(path: PurePosixPath) -> bool:
    return any(part == "__MACOSX" or part.startswith(".") for part in path.parts)
