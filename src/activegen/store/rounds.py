"""One round of a store."""

import errno
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features

from activegen.records import Request, Sample, UserError, Verdict
from activegen.store import rows
from activegen.store.files import Files, parse_json


class RoundStore:
    """Plan, shards, verdicts and summary, written in this order. Made by ``Store.round``."""

    def __init__(self, files: Files, classes: tuple[str, ...]):
        self._files = files
        self._classes = classes

    def plan(self) -> list[Request] | None:
        """All that was asked for, in order; None before it was written."""
        found = self._read("plan.parquet")
        return None if found is None else [rows.request(row) for row in found]

    def write_plan(self, requests: Sequence[Request]) -> None:
        """Write down what the round will generate. The same plan again changes nothing.

        Raises:
            UserError: another plan stands here already, or a target is no class.
            ValueError: one request twice (its image would be made and counted twice).
        """
        self._files.tidy()
        if (standing := self.plan()) is not None:
            if standing != list(requests):
                raise UserError(
                    f"{self._files.path('plan.parquet')} holds another plan than this run made: "
                    "the data or the code changed since; choose another --out folder"
                )
            return
        _unique([request.id for request in requests], "request")
        for request in requests:
            if not 0 <= request.target < len(self._classes):
                raise UserError(
                    f"target {request.target} of the prompt '{request.prompt}' is no class id: "
                    f"there are {len(self._classes)} classes"
                )
        features = rows.plan_features(self._classes)
        self._write("plan.parquet", [rows.request_row(r) for r in requests], features)

    def shards(self) -> set[int]:
        """Indices of the shards that stand there whole; see ``broken`` for the others."""
        return {index for index, ids in self._scan().items() if ids is not None}

    def broken(self) -> list[str]:
        """Paths of shards that cannot be read (a damaged disk); they count as not written."""
        return [self._files.path(_shard(k)) for k, ids in self._scan().items() if ids is None]

    def write_shard(self, index: int, samples: Sequence[Sample]) -> None:
        """Store the samples of one batch of the plan, replacing a broken shard of this index.

        Raises:
            UserError: the disk is full; what stood there before is untouched.
            ValueError: no plan, a sample that was not planned, or the round is complete.
        """
        self._planned([sample.request.id for sample in samples])
        features = rows.shard_features(self._classes)
        self._write(_shard(index), [rows.sample_row(s) for s in samples], features)

    def samples(self) -> Iterator[Sample]:
        """The samples so far in the order of the plan; one shard is in memory at a time.

        Fast when a shard holds neighbours of the plan.

        Raises:
            UserError: a shard is damaged inside; the message names it.
        """
        where = {id: k for k, ids in self._scan().items() if ids is not None for id in ids}
        loaded, by_id = -1, {}
        for request in self.plan() or []:
            shard = where.get(request.id)
            if shard is None:
                continue
            if shard != loaded:
                found = self._read(_shard(shard)) or []
                loaded, by_id = shard, {row["id"]: row for row in found}
            yield rows.sample(by_id[request.id])

    def write_verdicts(self, verdicts: Sequence[Verdict]) -> None:
        """Store the judgement of the round, replacing an earlier one of an unfinished round.

        Raises:
            ValueError: no plan, a verdict on what was not planned, or the round is complete.
        """
        self._planned([verdict.id for verdict in verdicts])
        self._write("verdicts.parquet", [rows.verdict_row(v) for v in verdicts], rows.VERDICT)

    def verdicts(self) -> list[Verdict] | None:
        """The judgement in the order it was written; None before that."""
        found = self._read("verdicts.parquet")
        return None if found is None else [rows.verdict(row) for row in found]

    def judged(self) -> list[tuple[Request, Verdict | None]]:
        """The plan, each request with its verdict; None where it has none yet."""
        verdicts = {verdict.id: verdict for verdict in self.verdicts() or []}
        return [(request, verdicts.get(request.id)) for request in self.plan() or []]

    def close(self, summary: Mapping[str, Any]) -> None:
        """Declare the round complete; nothing can be written to it after this.

        Raises:
            ValueError: a planned request has neither a sample nor a rejection, an id is in two
                shards, a sample has no verdict, or the round is complete already.
        """
        drawn = [id for ids in self._scan().values() for id in ids or []]
        self._planned(drawn)
        verdicts = {v.id: v for v in self.verdicts() or []}
        rejected = {id for id, v in verdicts.items() if not v.accepted}
        lost = {r.id for r in self.plan() or []} - set(drawn) - rejected
        unjudged = set(drawn) - verdicts.keys()
        for what, ids in (("without a sample", lost), ("without a verdict", unjudged)):
            if ids:
                raise ValueError(f"{len(ids)} requests {what}, such as {min(ids)}")
        self._files.tidy()
        text = json.dumps(summary, indent=1, ensure_ascii=False)
        self._files.write("round.json", text.encode())

    def summary(self) -> dict[str, Any] | None:
        """What ``close`` was given; None before that."""
        text = self._files.read("round.json")
        return None if text is None else parse_json(text, self._files.path("round.json"))

    @property
    def complete(self) -> bool:
        """Whether the round was closed."""
        return "round.json" in self._files.names()

    def _planned(self, ids: Sequence[str]) -> None:
        if self.complete:
            raise ValueError(f"{self._files.root} is complete and cannot be written to")
        plan = self._read("plan.parquet", ["id"])
        if plan is None:
            raise ValueError(f"{self._files.root} has no plan; write the plan first")
        if foreign := set(ids) - {row["id"] for row in plan}:
            raise ValueError(f"{min(foreign)} is not in the plan of {self._files.root}")
        _unique(ids, "id")

    def _scan(self) -> dict[int, list[str] | None]:
        """The ids in each listed shard, None for a shard that cannot be read."""
        found = (re.fullmatch(r"shard-(\d{5,})\.parquet", name) for name in self._files.names())
        return {k: self._ids(k) for k in sorted(int(match[1]) for match in found if match)}

    def _ids(self, index: int) -> list[str] | None:
        try:
            return [row["id"] for row in self._read(_shard(index), ["id"]) or []]
        except _Damaged:  # told by broken(), and made again
            return None

    def _read(self, name: str, columns: list[str] | None = None) -> list[dict[str, Any]] | None:
        if name not in self._files.names():
            return None
        try:
            with self._files.open(name) as file:
                table = pq.ParquetFile(file, page_checksum_verification=True).read(columns)
                return table.select(columns or table.column_names).to_pylist()
        except (pa.ArrowException, KeyError, OSError) as error:
            # Arrow tells of damage by an OSError without a number; a network's have one.
            if isinstance(error, OSError) and error.errno not in (None, errno.EIO):
                raise
            raise _Damaged(
                f"{self._files.path(name)} cannot be read ({error}); delete it and start the same "
                "command again to make it anew"
            ) from error

    def _write(self, name: str, table_rows: list[dict[str, Any]], features: Features) -> None:
        file = io.BytesIO()
        table = pa.Table.from_pylist(table_rows, schema=features.arrow_schema)
        pq.write_table(table, file, compression="zstd", write_page_checksum=True)
        self._files.write(name, file.getvalue())


class _Damaged(UserError):
    """A parquet file that is not whole."""


def _shard(index: int) -> str:
    return f"shard-{index:05d}.parquet"


def _unique(ids: Sequence[str], what: str) -> None:
    twice = [id for id, count in Counter(ids).items() if count > 1]
    if twice:
        raise ValueError(f"{what} {twice[0]} stands there more than once")
