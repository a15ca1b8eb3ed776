"""The columns of the parquet files, and requests, samples and verdicts as rows of them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from datasets import ClassLabel, Features, Image, List, Value

from activegen.records import Request, Sample, UserError, Verdict

_TEXT, _BYTES = Value("string"), Value("binary")
_REQUEST = {
    "id": _TEXT,
    "prompt": _TEXT,
    "word": _TEXT,
    "seed": Value("int64"),
    "mask": _TEXT,
    "part": Value("int64"),
    "reference": _TEXT,
    "classes": List(Value("int64")),
    "words": List(_TEXT),
    "round": Value("int64"),
    "arm": _TEXT,
    "steering": _TEXT,
    "state": _TEXT,
}
# JSON keeps a float exactly, and a name that only some samples have needs no column of nulls.
_SAMPLE = {
    "attention": _BYTES,
    "uncertainty": _BYTES,
    "latents": _BYTES,
    "scores": _TEXT,
    "made_by": _TEXT,
}
VERDICT = Features(
    {
        "id": _TEXT,
        "accepted": Value("bool"),
        "reason": _TEXT,
        "scores": _TEXT,
        "ignored": _BYTES,
    }
)


def plan_features(classes: Sequence[str]) -> Features:
    """The columns of a plan."""
    return Features({"label": ClassLabel(names=list(classes)), **_REQUEST})


def shard_features(classes: Sequence[str]) -> Features:
    """The columns of a shard, as ``datasets`` opens them."""
    label = ClassLabel(names=list(classes))
    # "mask" is the request's: the name of where the pixels in "segmentation" come from
    pictures = {name: Image() for name in ("image", "segmentation", "reliability")}
    first = {"id": _TEXT, **pictures, "label": label}
    return Features({**first, **_REQUEST, **_SAMPLE})


def request_row(request: Request) -> dict[str, Any]:
    """A request as a row of the plan."""
    row = asdict(request)
    return {"id": request.id, "label": row.pop("target"), **row}


def request(row: Mapping[str, Any]) -> Request:
    """The request in a row of a plan or shard; a UserError when its content is not its id's."""
    fields = {name: row[name] for name in _REQUEST if name != "id"}
    lists = {name: tuple(row[name]) for name in ("classes", "words")}
    request = Request(target=row["label"], **{**fields, **lists})
    if request.id != row["id"]:
        raise UserError(
            f"request {row['id']} of the store reads as {request.id}: its file was edited, or "
            "written by another version; delete the round, or use the version that wrote it"
        )
    return request


def sample_row(sample: Sample) -> dict[str, Any]:
    """A sample as a row of a shard."""
    return {
        **request_row(sample.request),
        "image": {"bytes": sample.image, "path": None},
        "segmentation": _picture(sample.mask),
        "reliability": _picture(sample.reliability),
        "attention": sample.attention or None,
        "uncertainty": sample.uncertainty or None,
        "latents": sample.latents or None,
        "scores": _numbers(sample.scores),
        "made_by": json.dumps(sample.made_by, ensure_ascii=False),
    }


def sample(row: Mapping[str, Any]) -> Sample:
    """The sample in a row of a shard."""
    return Sample(
        request=request(row),
        image=row["image"]["bytes"],
        mask=_bytes(row["segmentation"]),
        reliability=_bytes(row["reliability"]),
        attention=row["attention"] or b"",
        uncertainty=row["uncertainty"] or b"",
        latents=row["latents"] or b"",
        scores=json.loads(row["scores"]),
        made_by=json.loads(row["made_by"]),
    )


def verdict_row(verdict: Verdict) -> dict[str, Any]:
    """A verdict as a row."""
    row = asdict(verdict)
    return {**row, "scores": _numbers(verdict.scores), "ignored": verdict.ignored or None}


def verdict(row: Mapping[str, Any]) -> Verdict:
    """The verdict in a row."""
    scores, ignored = json.loads(row["scores"]), row["ignored"] or b""
    return Verdict(**{**row, "scores": scores, "ignored": ignored})


def _picture(data: bytes) -> dict[str, Any] | None:
    return {"bytes": data, "path": None} if data else None


def _bytes(picture: Mapping[str, Any] | None) -> bytes:
    return picture["bytes"] if picture else b""


def _numbers(scores: Mapping[str, float]) -> str:
    return json.dumps({name: float(value) for name, value in scores.items()}, ensure_ascii=False)
