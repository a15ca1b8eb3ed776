"""Whole files in one folder of any file system: there complete, or not there."""

import errno
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from activegen.records import UserError

TEMPORARY = ".tmp-"


def parse_json(text: bytes, path: str) -> dict[str, Any]:
    """The JSON object in the file at ``path``; anything else is a UserError that names it."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); restore it or delete it") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} is not a JSON object; restore it or delete it")
    return value


@dataclass(frozen=True)
class Files:
    """Whole files by name in one folder. Names are made here, never taken from data."""

    fs: fsspec.AbstractFileSystem
    root: str

    def path(self, name: str) -> str:
        """Where the file ``name`` is."""
        return f"{self.root.rstrip('/')}/{name}"

    def folder(self, name: str) -> "Files":
        """The folder ``name`` inside this one."""
        return Files(self.fs, self.path(name))

    def names(self) -> set[str]:
        """What is in the folder now, temporary files too; empty where there is no folder."""
        self.fs.invalidate_cache(self.root)
        if not self.fs.exists(self.root):
            return set()
        if not self.fs.isdir(self.root):
            raise UserError(f"'{self.root}' is a file; give a folder")
        listed = (str(path).rstrip("/") for path in self.fs.ls(self.root, detail=False))
        # An object store may list the mark of the folder itself.
        inside = (path for path in listed if path != self.root.rstrip("/"))
        return {path.rsplit("/", 1)[-1] for path in inside}

    def open(self, name: str, mode: str = "rb") -> Any:
        """The file ``name`` as bytes, open at its beginning; to read, one can seek in it."""
        return self.fs.open(self.path(name), mode)

    def read(self, name: str) -> bytes | None:
        """All of the file ``name``; None when there is none."""
        if name not in self.names():
            return None
        with self.open(name) as file:
            return file.read()

    def tidy(self) -> None:
        """Remove what a killed writer left half-written."""
        for name in self.names():
            if name.startswith(TEMPORARY):
                self.fs.rm_file(self.path(name))

    def write(self, name: str, data: bytes) -> None:
        """All of ``data`` under ``name``, or nothing: written aside, to disk, then renamed.

        Raises:
            UserError: the disk is full or a quota is used up.
        """
        aside, path = self.path(TEMPORARY + name), self.path(name)
        try:
            self.fs.makedirs(self.root, exist_ok=True)
            with self.open(TEMPORARY + name, "wb") as file:
                file.write(data)
                file.flush()
                if isinstance(self.fs, LocalFileSystem):
                    os.fsync(file.fileno())
            self._rename(aside, path)
        except BaseException as error:
            with suppress(OSError):  # the first error is the one to tell
                self.fs.rm_file(aside)
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise UserError(
                    f"no space left for {path} ({len(data)} bytes needed); make room and start "
                    "the same command again: it goes on where it stopped"
                ) from error
            raise

    def _rename(self, aside: str, path: str) -> None:
        if not isinstance(self.fs, LocalFileSystem):
            # Object stores copy, which is atomic; some others do not rename onto a file.
            if self.fs.exists(path):
                self.fs.rm_file(path)
            self.fs.mv(aside, path)
            return
        os.replace(aside, path)
        if os.name == "posix":
            folder = os.open(self.root, os.O_RDONLY)
            try:
                os.fsync(folder)  # so that the new name outlives a power cut
            finally:
                os.close(folder)


def open_folder(root: str) -> Files:
    """The folder at a local path or fsspec URL, whether or not it exists yet.

    Raises:
        UserError: a protocol that is unknown or not installed.
    """
    try:
        return Files(*fsspec.core.url_to_fs(root))
    except (ImportError, ValueError) as error:
        raise UserError(f"cannot open '{root}': {error}") from error
