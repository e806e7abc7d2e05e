"""Code that comes with a benchmark of somebody else's runs by leave alone, whichever way it comes.

Each way brings Python that leaves a file behind. Without leave no entry may run it, and each says
how to give it; the ways that nobody needs are closed for good.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from morphing.benchmarks.benchmark import Benchmark, get_benchmark, parse_benchmark
from morphing.benchmarks.data.samples import load_samples
from morphing.benchmarks.evaluate import evaluate
from morphing.benchmarks.judging.metrics import METRICS, get_metric
from morphing.errors import MorphingError

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

MODULE = """
import pathlib
import datasets
import evaluate
pathlib.Path({mark!r}).touch()
class Same(evaluate.Metric):
    def _info(self):
        kinds = {{"predictions": datasets.Value("string"), "references": datasets.Value("string")}}
        return evaluate.MetricInfo("", "", datasets.Features(kinds))
    def _compute(self, predictions, references):
        pathlib.Path({mark!r}).touch()
        return {{"same": float(predictions == references)}}
"""
TEMPLATE = (
    "{{% for c in ''.__class__.__mro__[1].__subclasses__() %}}"
    "{{% if c.__name__ == 'Popen' %}}{{{{ c(['touch', '{mark}']).wait() }}}}{{% endif %}}"
    "{{% endfor %}}{{{{ question }}}}"
)
ROWS = [{"question": f"what is {n}?", "answer": str(n)} for n in range(6)]


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that code of others leaves behind."""
    monkeypatch.delenv("MORPHING_ALLOW_CODE", raising=False)
    monkeypatch.delenv("SPACE_ID", raising=False)
    return tmp_path / "ran"


@pytest.fixture
def metric(tmp_path: Path, mark: Path) -> str:
    folder = tmp_path / "same"
    folder.mkdir()
    (folder / "same.py").write_text(MODULE.format(mark=str(mark)))
    return f"evaluate:{folder}"


@pytest.fixture
def judged(tmp_path: Path, metric: str) -> dict[str, Any]:
    """A declaration with a metric in a folder."""
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return {
        "name": "gift",
        "dataset": str(tmp_path / "rows.jsonl"),
        "kind": "generation",
        "prompt": "{{ question }}",
        "target": "{{ answer }}",
        "max_new_tokens": 2,
        "metric": metric,
    }


def spec_of(benchmark: dict[str, Any]) -> Any:
    from morphing.runs.spec import parse_spec

    return parse_spec(
        {
            "base": "zoo:base",
            "sources": ["zoo:word-games"],
            "benchmarks": [{"benchmark": benchmark, "samples": 2, "holdout": 2}],
            "search": {"sampler": "random", "evaluations": 1},
        },
        "gift",
    )


def test_a_metric_runs_by_leave(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    judged: dict[str, Any],
    mark: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    benchmark = parse_benchmark(judged, "gift")
    samples = load_samples(benchmark, "search", 2)
    assert not mark.exists()
    monkeypatch.setenv("MORPHING_ALLOW_CODE", "1")
    assert evaluate(model, tokenizer, benchmark, samples).n == 2
    assert mark.exists()
    mark.unlink()
    # What was loaded once does not go on without leave.
    monkeypatch.delenv("MORPHING_ALLOW_CODE")
    with pytest.raises(MorphingError, match="--allow-code"):
        evaluate(model, tokenizer, benchmark, samples)
    with pytest.raises(MorphingError, match="--allow-code"):
        get_metric(str(judged["metric"]))
    assert not mark.exists()


def test_no_entry_runs_a_metric_without_leave(
    judged: dict[str, Any], mark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from morphing.jobs.launch import launch
    from morphing.runs.loop import Loop
    from morphing.runs.prepare import create_run
    from morphing.runs.run import Run
    from morphing.ui.compose.catalogue import refusal

    spec = spec_of(judged)
    monkeypatch.setenv("MORPHING_ALLOW_CODE", "1")
    run = create_run(tmp_path / "run", spec)  # as a stranger's, who had leave
    monkeypatch.delenv("MORPHING_ALLOW_CODE")
    mark.unlink(missing_ok=True)
    on_hub = spec_of({**judged, "dataset": "org/name", "metric": "evaluate:wer"})
    entries: dict[str, Callable[[], object]] = {
        "spec": lambda: create_run(tmp_path / "other", spec),
        "resumed": lambda: Loop(Run(run.folder)).search(),
        "job": lambda: launch(on_hub, "a/b", image="i", flavor="f", timeout="1h", token="t"),
        "local metric in a job": lambda: launch(
            spec_of({**judged, "dataset": "org/name"}),
            "a/b",
            image="i",
            flavor="f",
            timeout="1h",
            token="t",
            allow_code=True,
        ),
    }
    for name, enter in entries.items():
        with pytest.raises(MorphingError, match=r"--allow-code|cannot see the metric"):
            print(name, enter())
    assert "--allow-code" in str(refusal(parse_benchmark(judged, "gift")))
    assert not mark.exists()


def test_the_command_line_asks_for_leave(
    judged: dict[str, Any], mark: Path, tmp_path: Path
) -> None:
    path = tmp_path / "gift.yaml"
    path.write_text(yaml.safe_dump(judged))
    command = [sys.executable, "-m", "morphing", "evaluate", "zoo:base", "-b", str(path)]
    done = subprocess.run([*command, "--samples", "2"], capture_output=True, text=True)
    assert done.returncode == 1 and "--allow-code" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and not mark.exists()


def test_metrics_of_the_hub_need_the_same_leave(mark: Path) -> None:
    for name in ("evaluate:wer", "evaluate:no_such_metric", "evaluate:./same", "evaluate:rouge#x"):
        with pytest.raises(MorphingError, match="--allow-code"):
            get_metric(name)
    for name in (*METRICS, "evaluate:rouge", "evaluate:sacrebleu#score"):
        get_metric(name)


# --- tasks of lm-evaluation-harness ---------------------------------------------------------------

PLAIN = {
    "task": "gift",
    "dataset_path": "json",
    "output_type": "generate_until",
    "test_split": "test",
    "doc_to_text": "{{question}}",
    "doc_to_target": "{{answer}}",
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}


@pytest.fixture
def task(tmp_path: Path, mark: Path) -> Callable[..., str]:
    """Writes a task's file; ``!function x`` are written as texts that begin so."""

    def write(**fields: Any) -> str:
        (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
        kwargs = {"data_files": {"test": "test.jsonl"}, **fields.pop("dataset_kwargs", {})}
        text = yaml.safe_dump({**PLAIN, "dataset_kwargs": kwargs, **fields})
        for quote in "'\"":
            text = text.replace(f"{quote}!function ", "!function ")
        text = "\n".join(
            line.rstrip("'\"") if "!function" in line else line for line in text.splitlines()
        )
        (tmp_path / "gift.yaml").write_text(text)
        own = f"import pathlib\npathlib.Path({str(mark)!r}).touch()\ndef run(*a, **k): return 'x'\n"
        (tmp_path / "own.py").write_text(own)
        return f"lm_eval:{tmp_path / 'gift.yaml'}"

    return write


def met(name: str) -> None:
    """Take the task in as a search would: declared, its samples made."""
    load_samples(get_benchmark(name), "search", 2)


@pytest.mark.parametrize(
    "field",
    ["doc_to_text", "doc_to_target", "process_docs", "process_results", "doc_to_choice", "sampler"],
)
@pytest.mark.parametrize("function", ["own.run", "os.system", "subprocess.getoutput"])
def test_python_that_a_task_names_runs_by_leave(
    task: Callable[..., str], mark: Path, field: str, function: str
) -> None:
    named: dict[str, Any] = {field: f"!function {function}"}
    if field == "sampler":
        named = {"fewshot_config": {"sampler": f"!function {function}"}, "num_fewshot": 1}
    with pytest.raises(MorphingError, match="--allow-code"):
        met(task(**named))
    assert not mark.exists()


def test_a_metric_that_a_task_fetches_runs_by_leave(task: Callable[..., str], mark: Path) -> None:
    entry = {"metric": "wer", "aggregation": "mean", "higher_is_better": False}
    for metric in (entry, entry | {"metric": "exact_match", "hf_evaluate": True}):
        with pytest.raises(MorphingError, match="--allow-code"):
            met(task(metric_list=[metric]))


def test_the_harnesss_own_python_fetches_no_metric_without_leave(mark: Path) -> None:
    import evaluate as library

    from morphing.benchmarks.judging.modules import guard_modules

    guard_modules()
    with pytest.raises(MorphingError, match="--allow-code"):
        library.load("rouge")


@pytest.mark.parametrize("field", ["doc_to_text", "doc_to_target", "gen_prefix"])
def test_a_tasks_template_runs_nothing(task: Callable[..., str], mark: Path, field: str) -> None:
    """The harness renders in an environment without a sandbox; here it has ours."""
    with pytest.raises(MorphingError):
        met(task(**{field: TEMPLATE.format(mark=mark)}))
    assert not mark.exists()


def test_what_runs_programs_without_a_sandbox_stays_refused(task: Callable[..., str]) -> None:
    from morphing.benchmarks.harness.files import library

    cruxeval = library() / "cruxeval" / "cruxeval_common_yaml"
    for unsafe in (True, False):  # a file that includes one cannot take the mark away
        with pytest.raises(MorphingError, match="without a sandbox"):
            met(task(include=str(cruxeval), unsafe_code=unsafe))


@pytest.mark.parametrize("setting", ["cache_dir", "download_config", "storage_options", "features"])
def test_settings_for_loading_that_do_more_than_say_what_are_refused(
    task: Callable[..., str], setting: str
) -> None:
    with pytest.raises(MorphingError, match=f"the setting '{setting}'"):
        met(task(dataset_kwargs={setting: "/tmp/x"}))


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system [x]", "!!python/name:os.system"])
def test_yaml_makes_no_objects(tmp_path: Path, tag: str, task: Callable[..., str]) -> None:
    name = task()
    for path in (tmp_path / "gift.yaml", tmp_path / "benchmark.yaml"):
        text = path.read_text() if path.exists() else "name: x\nkind: perplexity\ntarget: x\n"
        path.write_text(f"{text}\nmetadata: {tag}\n")
    with pytest.raises(MorphingError):
        get_benchmark(name)
    with pytest.raises(MorphingError):
        get_benchmark(str(tmp_path / "benchmark.yaml"))


def test_pickles_and_programs_are_no_data(tmp_path: Path, mark: Path) -> None:
    import pickle

    class Bomb:
        def __reduce__(self) -> Any:
            return Path.touch, (mark,)

    for folder, file in (("a", "test.pkl"), ("b", "b.py"), ("c", "test.pickle")):
        (tmp_path / folder).mkdir()
        content = f"open({str(mark)!r}, 'w')".encode() if file == "b.py" else pickle.dumps(Bomb())
        (tmp_path / folder / file).write_bytes(content)
        benchmark = parse_benchmark(
            {"name": "x", "dataset": str(tmp_path / folder), "kind": "perplexity", "target": "x"},
            "x",
        )
        with pytest.raises(MorphingError):
            load_samples(benchmark, "search", 1)
    assert not mark.exists()
    assert isinstance(benchmark, Benchmark)
