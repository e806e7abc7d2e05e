"""Rows from files, folders and the Hub, and what is said when they are not there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from morphing.benchmarks.benchmark import Benchmark, get_benchmark
from morphing.benchmarks.data.dataset import pin_benchmark, read_rows, split_names
from morphing.benchmarks.data.samples import load_samples
from morphing.errors import MorphingError
from tests.hub.server import RunningHub

Declare = Callable[..., Benchmark]
ROWS = [{"question": f"{n}?", "answer": n} for n in range(5)]
CARD = """---
configs:
- config_name: main
  data_files: [{split: train, path: main/train.jsonl}, {split: test, path: main/test.jsonl}]
- config_name: hard
  data_files: [{split: test, path: hard/test.jsonl}]
---
"""


def write(folder: Path) -> None:
    for name in ("main/train", "main/test", "hard/test"):
        file = folder / f"{name}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (folder / "README.md").write_text(CARD)


@pytest.fixture
def on_hub(hub: RunningHub, declare: Declare, request: pytest.FixtureRequest) -> Benchmark:
    """A dataset of two configs on the local Hub, under an id of the test's own."""
    name = "alice/" + request.node.name.split("[")[0].replace("_", "-")
    if not (hub.root / "datasets" / name).exists():
        write(hub.root / "datasets" / name)
    return declare({}, dataset=name, config="main")


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "parquet"])
def test_files(tmp_path: Path, declare: Declare, suffix: str) -> None:
    import pandas as pd

    frame = pd.DataFrame(ROWS)
    file = tmp_path / f"rows.{suffix}"
    if suffix.startswith("json"):
        frame.to_json(file, orient="records", lines=suffix == "jsonl")
    else:
        getattr(frame, f"to_{suffix}")(file, index=False)
    rows = read_rows(declare({}, dataset=str(file)), "test")
    assert [row["question"] for row in (rows[n] for n in range(5))] == [f"{n}?" for n in range(5)]
    assert len(load_samples(declare({}, dataset=str(file)), "search", 9)) == 2


def test_folders(tmp_path: Path, declare: Declare) -> None:
    folder = tmp_path / "plain"
    write(folder)
    plain = read_rows(declare({}, dataset=str(folder), config="hard"), "test")
    assert list(plain) == ROWS
    # Its files are named otherwise, so only its card tells.
    for file in folder.rglob("*.jsonl"):
        file.rename(file.with_name("rows-of-" + file.name))
    (folder / "README.md").write_text(CARD.replace("/t", "/rows-of-t"))
    told = read_rows(declare({}, dataset=str(folder), config="main"), "train")
    assert list(told) == ROWS


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.jsonl", '{"question": 1}\n{', "can't be read"),
        ("b.jsonl", "", "has no rows"),
        ("c.parquet", "no parquet", "can't be read"),
        ("d.jsonl", None, "does not exist"),
        ("f.jsonl", '{"question": 1}\n3\n', "line 2 is no JSON object"),
        ("g.json", "1", "it is no list of objects"),
        ("e.doc", "text", "ends in none of .jsonl, .ndjson, .json"),
    ],
)
def test_bad_files(
    tmp_path: Path, declare: Declare, name: str, text: str | None, said: str
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(MorphingError, match=said):
        read_rows(declare({}, dataset=str(tmp_path / name)), "test")


def test_unknown_zoo_dataset(declare: Declare) -> None:
    with pytest.raises(MorphingError, match="no split 'test': choose one of search, holdout"):
        read_rows(declare({}, dataset="zoo:kanji-numbers"), "test")
    with pytest.raises(MorphingError, match="no benchmark named 'absent'"):
        read_rows(declare({}, dataset="zoo:absent"), "test")


def test_from_the_hub(on_hub: Benchmark) -> None:
    pinned = pin_benchmark(on_hub)
    assert [row["question"] for row in read_rows(pinned, "test")] == [f"{n}?" for n in range(5)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"config": "easy"}, "has no config 'easy': choose one of main, hard"),
        ({"config": None}, "has several configs: choose one of main, hard"),
        ({"split": "dev"}, "has no split 'dev': choose one of train, test"),
        ({"revision": "v9"}, "has no revision 'v9'"),
        ({"dataset": "alice/nowhere"}, "not on the Hub, or it is private"),
        ({"dataset": "no such id"}, "neither a Hub id"),
    ],
)
def test_what_the_hub_has_not(on_hub: Benchmark, change: dict[str, str], said: str) -> None:
    benchmark = on_hub.model_copy(update=change)
    with pytest.raises(MorphingError, match=said) as caught:
        read_rows(benchmark, benchmark.split)
    assert "\n" not in str(caught.value)


def test_gated(hub: RunningHub, on_hub: Benchmark) -> None:
    hub.settings[f"datasets/{on_hub.dataset}"] = {"gated": True}
    with pytest.raises(
        MorphingError, match=r"is gated: accept its conditions at .*/datasets/alice/"
    ):
        read_rows(on_hub, "test")


def test_private(hub: RunningHub, on_hub: Benchmark) -> None:
    hub.settings[f"datasets/{on_hub.dataset}"] = {"private": True}
    with pytest.raises(MorphingError, match="not on the Hub, or it is private"):
        read_rows(on_hub, "test")
    with pytest.raises(MorphingError, match="not on the Hub, or it is private"):
        pin_benchmark(on_hub)


def as_program(hub: RunningHub, benchmark: Benchmark) -> Path:
    """Make the dataset a program; returns where its converted rows would lie."""
    folder = hub.root / "datasets" / benchmark.dataset
    (folder / f"{folder.name}.py").write_text("raise SystemExit")
    return hub.store.converted("datasets", benchmark.dataset)


def test_no_code_is_run(hub: RunningHub, on_hub: Benchmark) -> None:
    as_program(hub, on_hub)
    for ask in (pin_benchmark, lambda benchmark: read_rows(benchmark, "test")):
        with pytest.raises(MorphingError, match="runs no code from the Hub, and the Hub has no"):
            ask(on_hub)
    pinned = on_hub.model_copy(update={"revision": pin_commit(hub, on_hub)})
    with pytest.raises(MorphingError, match="leave the revision out to take the rows that"):
        read_rows(pinned, "test")


def pin_commit(hub: RunningHub, benchmark: Benchmark) -> str:
    repo = hub.store.get("datasets", benchmark.dataset)
    assert repo is not None
    return repo.sha


def test_a_program_is_taken_as_the_hub_converted_it(hub: RunningHub, on_hub: Benchmark) -> None:
    import pandas as pd

    branch = as_program(hub, on_hub)
    for config, rows in (("main", ROWS), ("hard", ROWS[:2])):
        for number, part in enumerate((rows[:1], rows[1:])):
            file = branch / config / "test" / f"{number:04}.parquet"
            file.parent.mkdir(parents=True, exist_ok=True)
            pd.DataFrame(part).to_parquet(file, index=False)
    pinned = pin_benchmark(on_hub)
    assert pinned.revision not in (None, pin_commit(hub, on_hub))
    for benchmark in (on_hub, pinned):
        rows = read_rows(benchmark, "test")
        assert [rows[index] for index in range(len(rows))] == ROWS
        assert split_names(benchmark) == ["test"]
        for change, said in (
            ({"config": "easy"}, "has no config 'easy': choose one of hard, main"),
            ({"config": None}, "has several configs: choose one of hard, main"),
            ({"split": "dev"}, "has no split 'dev': choose one of test"),
        ):
            changed = benchmark.model_copy(update=change)
            with pytest.raises(MorphingError, match=said):
                read_rows(changed, changed.split)
    hard = read_rows(pinned.model_copy(update={"config": ("hard", "main")}), "test")
    assert len(hard) == 2 + len(ROWS)


def test_of_a_large_dataset_only_the_chosen_ones_are_fetched(
    hub: RunningHub, on_hub: Benchmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same samples whichever way, and far less of the file."""
    import pyarrow
    import pyarrow.parquet

    count, files = 200_000, 2
    folder = hub.root / "datasets" / on_hub.dataset
    for file in folder.rglob("*.jsonl"):
        file.unlink()
    (folder / "README.md").unlink()
    for number in range(files):
        numbers = range(number * count // files, (number + 1) * count // files)
        table = pyarrow.table(
            {
                "question": [f"{n * 7919 % count}?" for n in numbers],
                "answer": pyarrow.array(numbers),
            }
        )
        pyarrow.parquet.write_table(
            table, folder / f"test-{number}-of-{files}.parquet", row_group_size=1000
        )
    size = sum(file.stat().st_size for file in folder.glob("*.parquet"))
    benchmark = pin_benchmark(on_hub.model_copy(update={"config": None}))
    hub.seen.clear()
    samples = load_samples(benchmark, "search", 10)
    fetched = sum(seen.bytes for seen in hub.seen if seen.path.endswith(".parquet"))
    assert len(samples) == 10
    for sample in samples:
        assert sample.target == sample.id.partition("/")[2]
        assert sample.prompt == f"{int(sample.target) * 7919 % count}?"
    assert fetched < size / 6
    monkeypatch.setattr("morphing.benchmarks.data.hub.LARGE", 10 * count)
    assert load_samples(benchmark, "search", 10) == samples


@pytest.fixture
def unplug(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From its call on, the Hub is at an address where nothing listens."""

    def unplug() -> None:
        import datasets
        import huggingface_hub.constants

        dead = "http://127.0.0.1:9"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", dead)
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", dead)

    return unplug


def test_no_network(on_hub: Benchmark, unplug: Callable[[], None]) -> None:
    unplug()
    for ask in (pin_benchmark, lambda benchmark: read_rows(benchmark, "test")):
        with pytest.raises(
            MorphingError, match=r"is not in the cache, and the Hub at .* cannot be reached"
        ):
            ask(on_hub)


def test_another_revision_in_the_cache_is_not_taken(
    hub: RunningHub, on_hub: Benchmark, unplug: Callable[[], None]
) -> None:
    old = pin_benchmark(on_hub)
    read_rows(old, "test")
    folder = hub.root / "datasets" / on_hub.dataset / "main"
    (folder / "test.jsonl").write_text(json.dumps(ROWS[0]) + "\n")
    new = pin_benchmark(on_hub)
    assert new.revision != old.revision
    unplug()
    with pytest.raises(MorphingError, match="its copy here is of another revision"):
        read_rows(new, "test")


@pytest.mark.testbed
@pytest.mark.parametrize(
    ("name", "rows", "target"),
    [("gsm8k", 1319, "18"), ("mgsm-ja", 250, "18"), ("rotten-tomatoes", 1066, 1)],
)
def test_catalogue_on_real_rows(testbed: Path, name: str, rows: int, target: str | int) -> None:
    benchmark = pin_benchmark(get_benchmark(name))
    assert len(read_rows(benchmark, benchmark.split)) == rows
    samples = load_samples(benchmark, "search", rows)
    first = [sample for sample in samples if sample.id == f"{benchmark.split}/0"]
    first += [
        sample
        for sample in load_samples(benchmark, "holdout", rows)
        if sample.id == f"{benchmark.split}/0"
    ]
    assert first[0].target == target


@pytest.mark.testbed
def test_languages_share_one_partition(testbed: Path) -> None:
    english, japanese = (
        {sample.id for sample in load_samples(get_benchmark(name), "search", 250)}
        for name in ("mgsm-en", "mgsm-ja")
    )
    assert english == japanese and len(english) == 125


@pytest.mark.testbed
def test_a_declaration_of_ones_own_on_real_rows(testbed: Path, declare: Declare) -> None:
    benchmark = declare(
        {},
        name="mawps",
        dataset="morphing-testbed/mawps",
        split="train",
        holdout_split="test",
        prompt="Question: {{ question }}\nAnswer:",
        max_new_tokens=8,
        stop=["\n"],
        extract="last_number",
        metric="numeric",
    )
    assert len(load_samples(benchmark, "search", 5000)) == 1379
    holdout = load_samples(benchmark, "holdout", 5000)
    assert len(holdout) == 347
    assert all(str(sample.target).lstrip("-").isdecimal() for sample in holdout)


SECRET = {"question": "SECRET?", "answer": "SECRET"}


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """Data beside the folder of a dataset, which nothing that the dataset says may reach."""
    file = tmp_path / "elsewhere" / "test.jsonl"
    file.parent.mkdir()
    file.write_text(json.dumps(SECRET) + "\n" + json.dumps(SECRET) + "\n")
    return file


@pytest.mark.parametrize("place", ["file", "config", "folder of a config"])
def test_links_do_not_lead_out_of_a_dataset(
    tmp_path: Path, declare: Declare, secret: Path, place: str
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "train.jsonl").write_text(json.dumps(ROWS[0]) + "\n")
    config = None
    if place == "file":
        (folder / "test.jsonl").symlink_to(secret)
    else:
        config = "linked" if place == "config" else "linked/deeper"
        target = secret.parent if place == "config" else secret.parent.parent / "other"
        (folder / "linked").symlink_to(target)
        if place != "config":
            (target / "deeper").mkdir(parents=True)
            (target / "deeper" / "test.jsonl").write_text(secret.read_text())
    benchmark = declare({}, dataset=str(folder), config=config)
    with pytest.raises(MorphingError, match="is not inside it"):
        read_rows(benchmark, "test")
    if config:
        with pytest.raises(MorphingError, match="is not inside it"):
            split_names(benchmark)


def test_a_snapshot_in_the_hubs_cache_is_a_folder_like_others(
    tmp_path: Path, declare: Declare
) -> None:
    """Its files are links to the blobs beside it."""
    folder = tmp_path / "datasets--a--b" / "snapshots" / "abc"
    blob = tmp_path / "datasets--a--b" / "blobs" / "1"
    for each in (folder, blob.parent):
        each.mkdir(parents=True)
    blob.write_text(json.dumps(ROWS[0]) + "\n")
    (folder / "test.jsonl").symlink_to(blob)
    assert list(read_rows(declare({}, dataset=str(folder)), "test")) == ROWS[:1]


@pytest.mark.parametrize("hub_or_folder", ["folder", "hub"])
@pytest.mark.parametrize("named", ["absolute", "relative", "glob", "address"])
def test_a_card_names_files_of_its_own_dataset_alone(
    hub: RunningHub,
    tmp_path: Path,
    declare: Declare,
    secret: Path,
    hub_or_folder: str,
    named: str,
) -> None:
    """`datasets` reads whatever a card names: on a Space that would be the machine's files."""
    name = f"mallory/reaches-{named}"
    folder = hub.root / "datasets" / name if hub_or_folder == "hub" else tmp_path / "data"
    folder.mkdir(parents=True)
    files = {
        "absolute": str(secret),
        "relative": "../elsewhere/test.jsonl",
        "glob": f"{tmp_path}/els*/*.jsonl",
        "address": f"{hub.url}/datasets/mallory/reaches-absolute/resolve/main/README.md",
    }
    card = {
        "configs": [
            {"config_name": "default", "data_files": [{"split": "test", "path": files[named]}]}
        ]
    }
    (folder / "README.md").write_text(f"---\n{json.dumps(card)}\n---\n")
    dataset = name if hub_or_folder == "hub" else str(folder)
    benchmark = declare({}, dataset=dataset)
    # `datasets` itself refuses some of a card on the Hub.
    for ask in (lambda: read_rows(benchmark, "test"), lambda: split_names(benchmark)):
        with pytest.raises(MorphingError, match=r"is not inside it|can't be read"):
            ask()
