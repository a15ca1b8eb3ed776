"""All the rounds of a recipe."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from activegen.records import Sample, UserError, Verdict
from activegen.store.files import open_folder, parse_json
from activegen.store.pixels import pixel_hash
from activegen.store.rounds import RoundStore

FORMAT = 2  # 2: words of masks that are read out of attention


class OtherRecipe(UserError):
    """A store that another recipe has begun."""


class Store:
    """All the rounds of one recipe under ``root``, a local path or any fsspec URL.

    Raises:
        UserError: no store there, one of a newer format, or a file system that is not installed.
    """

    def __init__(self, root: str):
        self.root = root
        self._files = open_folder(root)
        about = self._about()
        if about is None:
            raise UserError(f"no store at '{root}' (store.json is missing); give a run's folder")
        self.recipe: str = about["recipe"]
        self.classes: tuple[str, ...] = tuple(about["classes"])

    @classmethod
    def create_or_open(cls, root: str, recipe: str, classes: tuple[str, ...]) -> "Store":
        """The store at ``root``, made when there is none.

        Args:
            root: local path or fsspec URL.
            recipe: fingerprint of the recipe; rounds of two recipes never share a store.
            classes: class names in the order of their ids.

        Raises:
            OtherRecipe: another recipe's.
            UserError: other classes, a newer format, or a folder of other files.
        """
        files = open_folder(root)
        present = files.names()
        mend = "choose another --out folder, or delete the one that it is in to begin anew"
        if "store.json" not in present:
            foreign = sorted(name for name in present if not name.startswith("."))
            if foreign:
                raise UserError(
                    f"'{root}' holds other files ('{foreign[0]}', …); choose another --out "
                    "folder, or delete this one to begin anew"
                )
            about = {"format": FORMAT, "recipe": recipe, "classes": list(classes)}
            files.write("store.json", json.dumps(about, indent=1, ensure_ascii=False).encode())
        store = cls(root)
        if store.classes != classes:
            raise UserError(
                f"the store at '{root}' has the classes {', '.join(store.classes)}; "
                f"this run has {', '.join(classes)}: {mend}"
            )
        if store.recipe != recipe:
            raise OtherRecipe(
                f"the store at '{root}' was made by recipe {store.recipe}, this run is recipe "
                f"{recipe}: go on with the old recipe, {mend}"
            )
        return store

    def round(self, k: int) -> "RoundStore":
        """Round ``k``, counted from 0, whether or not anything is in it yet."""
        if k < 0:
            raise ValueError(f"rounds are counted from 0, not {k}")
        return RoundStore(self._files.folder(f"round-{k:04d}"), self.classes)

    def rounds(self) -> list[int]:
        """The rounds that have a folder, complete or not, in order."""
        found = (re.fullmatch(r"round-(\d{4,})", name) for name in self._files.names())
        return sorted(int(match[1]) for match in found if match)

    def accepted(self, before_round: int | None = None) -> Iterator[tuple[Sample, Verdict]]:
        """What to train on: the accepted samples of judged rounds, in the order of the plans.

        Raises:
            UserError: one is not there any more; or as `RoundStore.samples`.
        """
        for k in self.rounds():
            if before_round is None or k < before_round:
                round = self.round(k)
                kept = {v.id: v for v in round.verdicts() or [] if v.accepted}
                for sample in round.samples() if kept else ():
                    if verdict := kept.pop(sample.request.id, None):
                        yield sample, verdict
                if kept:
                    raise UserError(
                        f"{len(kept)} accepted images of round {k} in '{self.root}' are missing, "
                        f"such as {min(kept)}: restore the shards that are lost or damaged, or "
                        "delete the folder that the store is in, to make all of it anew"
                    )

    def rejections(self) -> dict[str, int]:
        """How many samples were rejected, by reason, most frequent first."""
        verdicts = (v for k in self.rounds() for v in self.round(k).verdicts() or [])
        return dict(Counter(v.reason for v in verdicts if not v.accepted).most_common())

    def fingerprints(self) -> dict[str, str]:
        """SHA-256 of each sample's size and pixels, by request id; equal runs have equal ones."""
        samples = (sample for k in self.rounds() for sample in self.round(k).samples())
        return {sample.request.id: pixel_hash(sample.image) for sample in samples}

    def _about(self) -> dict[str, Any] | None:
        text = self._files.read("store.json")
        if text is None:
            return None
        where = self._files.path("store.json")
        about = parse_json(text, where)
        format = about.get("format")
        if isinstance(format, int) and format > FORMAT:
            raise UserError(
                f"{where} is of format {format}, this version reads {FORMAT}: "
                "install a newer activegen"
            )
        if isinstance(format, int) and format < FORMAT:
            raise UserError(
                f"{where} is of format {format}, this version reads {FORMAT}: use the version that "
                "made it, or another --out folder"
            )
        if format != FORMAT or not {"recipe", "classes"} <= about.keys():
            raise UserError(f"{where} is not a store's; restore it, or choose another folder")
        return about
