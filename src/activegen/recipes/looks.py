"""Verdicts that a comparison's folder had before: who looks often finds something by chance.

A look is, by pair of arms, the seeds with which it had a verdict. Older files know their number
alone, which stands under "".
"""

from collections.abc import Mapping, Sequence
from typing import Any

from activegen.records import UserError
from activegen.store.files import Files, parse_json

Look = Mapping[str, Sequence[int]]


def look_of(made: Mapping[str, Any]) -> dict[str, list[int]]:
    """What a comparison has verdicts on."""
    return {
        f"{of['arm']} against {of['baseline']}": list(of["seeds"])
        for of in made["comparisons"]
        if of["p_value"] is not None
    }


def earlier_looks(files: Files, name: str) -> list[Look]:
    """Those that the file of a comparison tells of, its own among them; of a damaged file none."""
    written = files.read(name)
    try:
        made = parse_json(written, name) if written else {}
    except UserError:  # is written anew
        return []
    return with_look(made.get("looks", []), made) if made else []


def with_look(looks: Sequence[Any], made: Mapping[str, Any]) -> list[Look]:
    """These and that of a comparison, each once."""
    found: list[Look] = []
    for look in [*looks, look_of(made)]:
        look = {"": list(range(look))} if isinstance(look, int) else look
        if look and look not in found:
            found.append(look)
    return found


def looked_before(looks: Sequence[Look], made: Mapping[str, Any]) -> list[str]:
    """What earlier looks make of the verdicts of a comparison."""
    now = look_of(made)
    most = max((len(seeds) for seeds in now.values()), default=0)
    fewer = sorted({len(of) for look in looks for of in look.values() if len(of) < most})
    gone = sorted({pair for look in looks for pair in look if pair and pair not in now})
    dropped = sorted(
        {seed for look in looks for pair, of in look.items() if pair in now for seed in of}
        - {seed for of in now.values() for seed in of}
    )
    told = []
    if fewer:
        told.append(
            f"there were verdicts already with {', '.join(map(str, fewer))} seeds, and now with "
            f"{most}: who adds seeds until a verdict pleases gets false ones more often than in "
            "5 %, and p does not account for that; it holds where the number of seeds was fixed "
            "before the first look"
        )
    if gone or dropped:
        left = [*gone, *(f"seed {seed}" for seed in dropped)]
        told.append(
            f"earlier verdicts in this folder had what is left out now ({', '.join(left)}): who "
            "chooses arms or seeds by what they show gets false verdicts more often than in 5 %, "
            "and p does not account for that"
        )
    return told
