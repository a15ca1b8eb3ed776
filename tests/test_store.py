import errno
import json
import math
import uuid
from dataclasses import replace
from pathlib import Path

import datasets
import fsspec
import pytest
import torch
from fsspec.implementations.local import LocalFileSystem

from activegen.records import Request, Sample, UserError, Verdict
from activegen.store import Store, from_png, png

CLASSES = ("forest", "river", "sea or lake")


def requests(n: int = 6, round: int = 0) -> list[Request]:
    return [
        Request(
            prompt=f"a satellite photo of a »river« {k}",
            word="river",
            target=k % 3,
            seed=2**62 + k,
            reference="../../etc/passwd",
            round=round,
            arm="guided",
            steering="full",
            state="ab" * 8,
        )
        for k in range(n)
    ]


def sample(request: Request) -> Sample:
    rng = torch.Generator().manual_seed(request.seed)
    pixels = torch.randint(0, 256, (3, 8, 8), generator=rng, dtype=torch.uint8)
    odd = request.target == 1
    return Sample(
        request=request,
        image=png(pixels),
        latents=b"\x00\x01\xff" if odd else b"",
        attention=png(pixels[:1]) if odd else b"",
        scores={"entropy": 0.1 + 0.2, "margin": 1 / 3, "tiny": 5e-324} if odd else {},
        made_by={"model": "toy", "revision": "1"},
    )


def fill(store: Store, k: int = 0) -> None:
    round = store.round(k)
    plan = requests(round=k)
    round.write_plan(plan)
    for shard in range(3):
        if shard not in round.shards():
            round.write_shard(shard, [sample(r) for r in plan[2 * shard : 2 * shard + 2]])
    round.write_verdicts([Verdict(r.id, r.target != 0, "" if r.target else "flat") for r in plan])
    round.close({"accepted": 4, "rate": 0.1})


@pytest.fixture(params=["local", "memory"])
def root(request, tmp_path):
    return str(tmp_path / "run") if request.param == "local" else f"memory://{uuid.uuid4()}/run"


@pytest.fixture
def store(root):
    return Store.create_or_open(root, "abc", CLASSES)


def test_png_round_trips_and_is_deterministic():
    image = torch.arange(3 * 5 * 7, dtype=torch.uint8).view(3, 5, 7)
    assert torch.equal(from_png(png(image)), image)
    assert png(image) == png(image.clone())
    assert torch.equal(from_png(png(image[:1])), image[:1].expand(3, -1, -1))


def test_a_damaged_png_is_a_user_error():
    whole = png(torch.zeros(3, 64, 64, dtype=torch.uint8))
    for data in (b"GIF89a", whole[:40]):
        with pytest.raises(UserError, match="PNG"):
            from_png(data)


def test_everything_round_trips_exactly(store):
    round, plan = store.round(3), requests(round=3)
    assert round.plan() is None and round.verdicts() is None and round.summary() is None
    round.write_plan(plan)
    assert round.plan() == plan
    round.write_shard(1, [sample(r) for r in plan[3:]])
    round.write_shard(0, [sample(r) for r in reversed(plan[:3])])
    assert round.shards() == {0, 1} and round.broken() == []
    assert list(round.samples()) == [sample(r) for r in plan]
    assert [s.request.id for s in round.samples()] == [r.id for r in plan]
    verdicts = [Verdict(r.id, False, "blurred", {"x": 0.1 + 0.2}) for r in plan]
    round.write_verdicts(verdicts)
    assert round.verdicts() == verdicts
    assert not round.complete
    round.close({"made": 6})
    assert round.complete and round.summary() == {"made": 6}
    assert store.rounds() == [3]


def test_a_score_that_is_nan_stays_nan(store):
    round, (request,) = store.round(0), requests(1)
    round.write_plan([request])
    round.write_shard(0, [replace(sample(request), scores={"kl": math.nan, "up": math.inf})])
    (read,) = round.samples()
    assert math.isnan(read.scores["kl"]) and read.scores["up"] == math.inf


def test_accepted_rejections_and_fingerprints(store):
    fill(store, 0)
    fill(store, 1)
    both = list(store.accepted())
    assert len(both) == 8 and all(v.accepted and v.id == s.request.id for s, v in both)
    assert {s.request.round for s, _ in store.accepted(before_round=1)} == {0}
    assert store.rejections() == {"flat": 4}
    prints = store.fingerprints()
    assert len(prints) == 12 and len(set(prints.values())) == 6  # both rounds draw the same six
    opened = Store(store.root)
    assert opened.classes == CLASSES and opened.fingerprints() == prints


def test_an_empty_plan_is_a_plan(store):
    round = store.round(0)
    round.write_plan([])
    round.write_verdicts([])
    round.close({})
    assert round.plan() == [] and list(round.samples()) == [] and round.verdicts() == []


@pytest.mark.parametrize("stop", range(7))
def test_killed_and_started_again_ends_with_the_same_store(tmp_path, stop):
    whole = Store.create_or_open(str(tmp_path / "whole"), "abc", CLASSES)
    fill(whole)
    killed = KilledFileSystem(after=stop)
    with pytest.raises(KeyboardInterrupt):
        fill(Store.create_or_open(killed.url(tmp_path / "killed"), "abc", CLASSES))
    killed.writes = 99
    again = Store.create_or_open(killed.url(tmp_path / "killed"), "abc", CLASSES)
    fill(again)
    names = [
        sorted(p.relative_to(tmp_path / n) for p in (tmp_path / n).rglob("*"))
        for n in ("whole", "killed")
    ]
    assert names[0] == names[1]
    assert list(again.round(0).samples()) == list(whole.round(0).samples())
    assert again.fingerprints() == whole.fingerprints()


def test_leftovers_of_a_killed_process_do_not_count(tmp_path):
    store = Store.create_or_open(str(tmp_path), "abc", CLASSES)
    round = store.round(0)
    folder = tmp_path / "round-0000"
    folder.mkdir()
    (folder / ".tmp-shard-00000.parquet").write_bytes(b"PAR1 half")
    (folder / ".tmp-round.json").write_bytes(b"{")
    assert round.shards() == set() and not round.complete and round.plan() is None
    round.write_plan(requests())
    assert [p.name for p in folder.iterdir()] == ["plan.parquet"]


def test_a_truncated_shard_is_broken_and_made_again(tmp_path):
    store = Store.create_or_open(str(tmp_path), "abc", CLASSES)
    round, plan = store.round(0), requests()
    round.write_plan(plan)
    round.write_shard(0, [sample(r) for r in plan[:3]])
    round.write_shard(1, [sample(r) for r in plan[3:]])
    path = tmp_path / "round-0000" / "shard-00001.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    assert round.shards() == {0}
    assert [Path(p) for p in round.broken()] == [path]
    assert len(list(round.samples())) == 3
    round.write_shard(1, [sample(r) for r in plan[3:]])
    assert round.shards() == {0, 1} and len(list(round.samples())) == 6


def test_damage_inside_a_shard_is_reported_by_name(tmp_path):
    store = Store.create_or_open(str(tmp_path), "abc", CLASSES)
    round, plan = store.round(0), requests()
    round.write_plan(plan)
    round.write_shard(0, [sample(r) for r in plan])
    path = tmp_path / "round-0000" / "shard-00000.parquet"
    data = bytearray(path.read_bytes())
    at = data.index(b"IDAT") + 20
    data[at] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(UserError, match=r"shard-00000\.parquet.*delete"):
        list(round.samples())


def test_a_full_disk_leaves_nothing_half_written(tmp_path):
    disk = SmallFileSystem(room=60_000)
    round = Store.create_or_open(disk.url(tmp_path / "run"), "abc", CLASSES).round(0)
    plan = requests()
    round.write_plan(plan)
    round.write_shard(0, [sample(r) for r in plan[:3]])
    before = sorted(p for p in tmp_path.rglob("*"))
    disk.room = 700
    with pytest.raises(UserError, match=r"shard-00001\.parquet \(\d+ bytes needed\).*again"):
        round.write_shard(1, [sample(r) for r in plan[3:]])
    assert disk.room == 0  # some of it was on the disk
    assert sorted(p for p in tmp_path.rglob("*")) == before
    assert round.shards() == {0}
    disk.room = 60_000
    round.write_shard(1, [sample(r) for r in plan[3:]])
    assert round.shards() == {0, 1}


def test_other_recipe_or_classes_are_refused(store):
    assert Store.create_or_open(store.root, "abc", CLASSES).recipe == "abc"
    with pytest.raises(UserError, match=r"abc.*def.*--out"):
        Store.create_or_open(store.root, "def", CLASSES)
    with pytest.raises(UserError, match=r"forest, river.*this run has forest, lake.*--out"):
        Store.create_or_open(store.root, "abc", ("forest", "lake"))


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(UserError, match="no store"):
        Store(str(tmp_path))
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match=r"thesis\.tex.*--out"):
        Store.create_or_open(str(tmp_path), "abc", CLASSES)
    with pytest.raises(UserError, match="is a file"):
        Store.create_or_open(str(tmp_path / "thesis.tex"), "abc", CLASSES)
    with pytest.raises(UserError, match="carrierpigeon"):
        Store("carrierpigeon://coop")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (json.dumps({"format": 3, "recipe": "abc", "classes": CLASSES}), "newer"),
        (json.dumps({"format": 1, "recipe": "abc", "classes": CLASSES}), "version that made it"),
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ("{}", "not a store's"),
    ],
)
def test_a_store_file_we_cannot_use_is_refused(tmp_path, text, message):
    (tmp_path / "store.json").write_text(text)
    with pytest.raises(UserError, match=message):
        Store.create_or_open(str(tmp_path), "abc", CLASSES)


def test_a_plan_stands(store):
    round, plan = store.round(0), requests()
    round.write_plan(plan)
    round.write_plan(plan)
    for other in (plan[:-1], plan[::-1], []):
        with pytest.raises(UserError, match="another plan"):
            round.write_plan(other)
    assert round.plan() == plan


def test_plans_that_make_no_sense_are_refused(store):
    (request,) = requests(1)
    with pytest.raises(ValueError, match="more than once"):
        store.round(0).write_plan([request, request])
    with pytest.raises(UserError, match="no class id"):
        store.round(0).write_plan([replace(request, target=3)])
    with pytest.raises(ValueError, match="counted from 0"):
        store.round(-1)
    assert store.rounds() == []


def test_only_what_was_planned_is_stored(store):
    round, plan = store.round(0), requests()
    with pytest.raises(ValueError, match="no plan"):
        round.write_shard(0, [sample(plan[0])])
    round.write_plan(plan[:2])
    with pytest.raises(ValueError, match="not in the plan"):
        round.write_shard(0, [sample(plan[2])])
    with pytest.raises(ValueError, match="not in the plan"):
        round.write_verdicts([Verdict(plan[2].id, True)])


def test_a_round_closes_only_whole_and_once(store):
    round, plan = store.round(0), requests(2)
    round.write_plan(plan)
    round.write_shard(0, [sample(plan[0])])
    round.write_verdicts([Verdict(plan[0].id, True)])
    with pytest.raises(ValueError, match="1 requests without a sample"):
        round.close({})
    round.write_verdicts([Verdict(plan[1].id, False, "not finite")])
    with pytest.raises(ValueError, match="1 requests without a verdict"):
        round.close({})
    round.write_verdicts([Verdict(plan[0].id, True), Verdict(plan[1].id, False, "not finite")])
    round.write_shard(1, [sample(plan[0])])
    with pytest.raises(ValueError, match="more than once"):
        round.close({})
    round.write_shard(1, [sample(plan[1])])
    round.close({})
    for write in (
        lambda: round.close({}),
        lambda: round.write_verdicts([]),
        lambda: round.write_shard(0, []),
    ):
        with pytest.raises(ValueError, match="complete"):
            write()


def test_an_edited_request_is_noticed(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    round = Store.create_or_open(str(tmp_path), "abc", CLASSES).round(0)
    round.write_plan(requests(1))
    path = tmp_path / "round-0000" / "plan.parquet"
    table = pq.read_table(path)
    seeds = table.schema.get_field_index("seed")
    pq.write_table(table.set_column(seeds, "seed", pa.array([7])), path)
    with pytest.raises(UserError, match="edited"):
        round.plan()


def test_names_from_data_never_become_paths(tmp_path):
    store = Store.create_or_open(str(tmp_path / "run"), "abc", ("../forest", "b/c", "C:\\d"))
    fill(store)
    made = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    parts = ("plan.parquet", "verdicts.parquet", "round.json")
    shards = tuple(f"shard-0000{k}.parquet" for k in range(3))
    assert made == {"run/store.json", *(f"run/round-0000/{name}" for name in parts + shards)}


def test_opens_with_datasets(tmp_path):
    store = Store.create_or_open(str(tmp_path / "run"), "abc", CLASSES)
    fill(store, 0)
    fill(store, 1)
    opened = datasets.load_dataset(
        "parquet",
        data_files=str(tmp_path / "run" / "round-*" / "shard-*.parquet"),
        split="train",
        cache_dir=str(tmp_path / "cache"),
    )
    assert isinstance(opened, datasets.Dataset) and len(opened) == 12
    assert isinstance(opened.features["image"], datasets.Image)
    assert opened.features["label"].names == list(CLASSES)
    expected = sample(requests()[1])
    row = next(r for r in opened if r["id"] == expected.request.id)
    image = torch.tensor(list(row["image"].tobytes()), dtype=torch.uint8).view(8, 8, 3)
    assert torch.equal(image.permute(2, 0, 1), from_png(expected.image))
    assert json.loads(row["scores"]) == expected.scores
    assert row["latents"] == expected.latents


class SeamFileSystem(LocalFileSystem):
    """The local disk behind a protocol of its own, so that a test can make it fail."""

    protocol = "seam"
    cachable = False

    def url(self, path: Path) -> str:
        type(self).current = self
        return f"{self.protocol}://{path}"

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return LocalFileSystem._strip_protocol(path.removeprefix(f"{cls.protocol}://"))

    def _open(self, path, mode="rb", block_size=None, **kwargs):
        file = super()._open(path, mode, block_size, **kwargs)
        return file if mode == "rb" else FailingFile(file, type(self).current)


class FailingFile:
    def __init__(self, file, fs):
        self._file, self._fs = file, fs

    def write(self, data):
        self._fs.check(self._file, data)
        return self._file.write(data)

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._file.close()


class SmallFileSystem(SeamFileSystem):
    protocol = "small"

    def __init__(self, room: int = 0, **kwargs):
        super().__init__(**kwargs)
        self.room = room

    def check(self, file, data):
        if len(data) > self.room:
            file.write(data[: self.room])
            self.room = 0
            raise OSError(errno.ENOSPC, "No space left on device")
        self.room -= len(data)


class KilledFileSystem(SeamFileSystem):
    protocol = "killed"

    def __init__(self, after: int = 0, **kwargs):
        super().__init__(**kwargs)
        self.writes = after

    def check(self, file, data):
        if self.writes == 0:
            file.write(data[: len(data) // 2])
            raise KeyboardInterrupt
        self.writes -= 1

    def rm_file(self, path):
        if type(self).current.writes:  # the dead do not tidy up
            super().rm_file(path)


for kind in (SmallFileSystem, KilledFileSystem):
    fsspec.register_implementation(kind.protocol, kind, clobber=True)
