"""One process at a time in a folder that is written to."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from activegen.records import UserError

LOCK = ".lock"


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keeps other processes out; the system lets them in again however this one ends.

    Warns where the file system knows no locks.

    Raises:
        UserError: another process is at work in the folder, it is a file, or it cannot be written.
    """
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise UserError(
            f"another process is at work in {folder}; wait for its end, stop it, or choose another "
            "folder with --out"
        ) from error
    except FileExistsError as error:
        raise UserError(f"'{folder}' is a file; give a folder") from error
    except OSError as error:
        raise UserError(
            f"the folder '{folder}' cannot be written to ({error}); choose another with --out"
        ) from error
    except NotImplementedError:
        warnings.warn(
            f"the file system of {folder} has no locks; start no other process in it", stacklevel=3
        )
    try:
        yield
    finally:
        lock.release()
