"""What a user asks first when something does not work."""

import hashlib
import json
import shutil
from pathlib import Path

from activegen.recipes.environment import environment
from activegen.zoo import LAND_COVER

CHECKSUMS = "checksums.json"  # of the embedded generator: sha256 by path below its folder


def facts() -> dict[str, str]:
    """Versions, machine and disk, as text."""
    found = environment()
    return {
        **found["versions"],
        "python": found["python"],
        "platform": found["platform"],
        "device": found["gpu"] or "CPU only",
        "cores, threads": f"{found['cpus']}, {found['threads']}",
        "free disk here": f"{shutil.disk_usage(Path.cwd()).free / 2**30:.1f} GiB",
        "embedded generator": str(LAND_COVER) if LAND_COVER.is_dir() else "missing",
    }


def embedded_problem(folder: Path = LAND_COVER) -> str:
    """What is wrong with the embedded generator; "" when nothing is."""
    again = "install activegen again"
    if not folder.is_dir():
        return f"the embedded generator is missing ({folder}); {again}, or set model.path"
    listed = folder / CHECKSUMS
    if not listed.is_file():
        return f"{listed} is missing, so the embedded generator cannot be checked; {again}"
    for name, wanted in json.loads(listed.read_text(encoding="utf-8")).items():
        file = folder / name
        if not file.is_file():
            return f"{file} is missing; {again}"
        if hashlib.sha256(file.read_bytes()).hexdigest() != wanted:
            return f"{file} is not what was published (its sha256 differs); {again}"
    return ""
