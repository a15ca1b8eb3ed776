import re
from pathlib import Path

import pytest

import activegen.guidance
from activegen.guidance import OBJECTIVES, REGIONS, TERMS
from activegen.scores import SCORES

PAGE = Path(__file__).parents[2] / "docs" / "terms.md"
ROWS = {
    row.split("|")[1].strip().strip("`"): row
    for row in PAGE.read_text().splitlines()
    if row.startswith("| `")
}


@pytest.mark.parametrize("name", sorted({*TERMS, *OBJECTIVES, *REGIONS, *SCORES}))
def test_every_name_has_a_row_with_a_source_and_a_file(name):
    row = ROWS[name]
    assert re.search(r"\((19|20)\d\d\)|ours", row), row
    (file,) = re.findall(r"`(\w+(?:/\w+)?\.py)`", row)
    assert (Path(activegen.guidance.__file__).parents[1] / file).exists()


def test_no_row_names_something_that_is_gone():
    assert set(ROWS) == {*TERMS, *OBJECTIVES, *REGIONS, *SCORES}
