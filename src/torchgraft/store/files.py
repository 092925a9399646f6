"""Files that are whole or not there: written beside their place, flushed to the disk, then moved into it."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

from torchgraft.errors import StoreError, TorchgraftWarning

__all__ = ["STALE", "Chunks", "alone", "explained", "is_stale", "make_folder", "write_files", "write_whole"]

Chunks = Iterable[bytes | memoryview]
"""The bytes of a file, in pieces."""

STALE = 3600.0
"""Seconds after which a temporary file can only be the rest of a process that was killed."""

_FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "your disk quota is used up",
         errno.EFBIG: "the file would be larger than the limit on file sizes"}  # fmt: skip
_CLOSED = {errno.EROFS: "the folder is read-only", errno.EACCES: "you have no right to it",
           errno.EPERM: "you have no right to it"}  # fmt: skip
_NOT_A_FOLDER = {errno.ENOTDIR, errno.EEXIST}
_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}


def write_files(files: Iterable[tuple[Path, Chunks]]) -> None:
    """Write files so that, killed or cut off at any moment, each path is its old self or its new one.

    All are written before the first is flushed: one commit of the disk's journal then serves many.
    """
    beside: dict[Path, Path] = {}
    try:
        for path, chunks in files:
            temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
            beside[temporary] = path
            with open(temporary, "xb") as file:
                file.writelines(chunks)
        for temporary in beside:
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
        for temporary, path in beside.items():
            os.replace(temporary, path)
        for folder in {path.parent for path in beside.values()}:
            _sync_folder(folder)
    finally:
        for temporary in beside:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes, *, what: str) -> None:
    """Write one file, which is whole or as it was.

    Raises:
        StoreError: it can't be written; `what` says what it is.
    """
    with explained(f"{what} can't be written", path.parent, needed=len(content)):
        write_files([(path, [content])])


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, so that they outlast a power cut."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in missing:
        _sync_folder(each.parent)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows opens no folders, and needs no flush of them
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:  # some network file systems can't
            raise
    finally:
        os.close(handle)


def is_stale(path: Path) -> bool:
    """Say whether a file was last written so long ago that nobody is still at it."""
    with contextlib.suppress(OSError):
        return time.time() - path.stat().st_mtime > STALE
    return False


@contextlib.contextmanager
def alone(folder: Path, name: str = ".lock", *, wait: bool = True) -> Iterator[None]:
    """Keep other processes and threads out of a folder; the lock goes with the process, even a killed one.

    Args:
        folder: that they would write to.
        name: of the file that is locked.
        wait: until the other one is out.

    Raises:
        BlockingIOError: another one is in, and there is no waiting.
    """
    with open(folder / name, "a") as file:
        try:
            _lock(file.fileno(), wait=wait)
        except BlockingIOError:
            raise
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            note = f"{folder} is on a disk without locks: let only one process save there at a time"
            warnings.warn(note, TorchgraftWarning, stacklevel=2)
        yield


def _lock(handle: int, *, wait: bool) -> None:
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(handle, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
        except OSError as error:
            if wait:
                raise
            raise BlockingIOError(error.errno, str(error)) from error
    else:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextlib.contextmanager
def explained(what: str, where: Path, *, needed: int = 0) -> Iterator[None]:
    """Turn what the operating system refuses into a StoreError; `needed` is in bytes."""
    try:
        yield
    except OSError as error:
        reason, hint = _reason(error, where, needed)
        raise StoreError(f"{what}: {reason}", str(where), hint) from error


def _reason(error: OSError, where: Path, needed: int) -> tuple[str, str]:
    code = error.errno or 0
    if code in _FULL:
        room = f"{_megabytes(needed)} are needed, {_megabytes(_free(where))} are free"
        return _FULL[code], f"{room}: make room, or choose a folder on another disk"
    if code in _CLOSED:
        return _CLOSED[code], "choose another folder, or give yourself the right to this one"
    if code in _NOT_A_FOLDER:
        return "a file stands where a folder should be", "choose another folder, or move that file away"
    return f"{error.strerror or error} ({error.filename or where})", "choose another folder"


def _megabytes(size: int) -> str:
    return f"{max(size / 1e6, 0.01):,.2f} MB" if size else "0 MB"


def _free(where: Path) -> int:
    for folder in (where, *where.parents):
        with contextlib.suppress(OSError):
            return shutil.disk_usage(folder).free
    return 0
