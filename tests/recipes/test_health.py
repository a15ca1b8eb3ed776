"""The embedded generator is checked by its checksums."""

import hashlib
import json
from pathlib import Path

from activegen.recipes.health import embedded_problem, facts


def test_embedded_generator(tmp_path: Path) -> None:
    assert "is missing" in embedded_problem(tmp_path / "nowhere")
    assert "cannot be checked" in embedded_problem(tmp_path)
    (tmp_path / "weights").write_bytes(b"good")
    sums = {"weights": hashlib.sha256(b"good").hexdigest()}
    (tmp_path / "checksums.json").write_text(json.dumps(sums))
    assert embedded_problem(tmp_path) == ""
    (tmp_path / "weights").write_bytes(b"bad")
    assert "sha256 differs" in embedded_problem(tmp_path)
    (tmp_path / "weights").unlink()
    assert "weights is missing" in embedded_problem(tmp_path)


def test_facts_name_versions_and_machine() -> None:
    assert {"activegen", "torch", "python", "device", "free disk here"} <= facts().keys()
