"""How long scoring takes, against lm-evaluation-harness's HFLM and against the model's arithmetic.

``python perf/evaluate.py --hub FOLDER`` writes results/evaluate.json and results/evaluate.md;
perf/README.md says what is measured and how.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial, wraps
from pathlib import Path
from typing import Any

# This script has the name of a package that the harness imports: its folder comes last.
sys.path.append(sys.path.pop(0))

from evaluate_report import evaluation
from machine import Machine
from questions import Case, cases
from timing import Task, in_turn, summary

_RESULTS = Path(__file__).parent / "results"
_MODEL = "models/HuggingFaceTB/SmolLM2-135M-Instruct"
_BATCHES = (1, 4, 8, 16, 32, 64)
"""What HFLM is tried with."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--hub", type=Path, help="what shared/hub/build.py --llm made (default: the zoo)"
    )
    parser.add_argument("--threads", type=int, help="for everything (default: one a core; zoo: 1)")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--repeats", type=int, default=2, help="of ours and of HFLM's best")
    parser.add_argument("--only", help="cases whose names contain one of these, by commas")
    parser.add_argument("--quick", action="store_true", help="a quarter of the samples, once")
    parser.add_argument("--anyway", action="store_true", help="measure though the machine is busy")
    parser.add_argument("--results", type=Path, default=_RESULTS)
    arguments = parser.parse_args()
    machine = Machine()
    machine.check_idle(arguments.anyway)
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch

    threads = arguments.threads or (os.cpu_count() or 1 if arguments.hub else 1)
    torch.set_num_threads(threads)
    model, tokenizer, name = _load(arguments.hub, getattr(torch, arguments.dtype))
    results: dict[str, Any] = {
        "model": name,
        "dtype": arguments.dtype,
        "quick": arguments.quick,
        "matmul_gflops": round(_matmul(model) / 1e9, 1),
        "cases": {},
    }
    for case in cases(arguments.hub, arguments.quick):
        if any(part in case.name for part in (arguments.only or case.name).split(",")):
            repeats = 1 if arguments.quick else arguments.repeats
            results["cases"][case.name] = _measure(case, model, tokenizer, repeats, results)
    results["machine"] = {**machine.facts(), "threads": threads}
    arguments.results.mkdir(parents=True, exist_ok=True)
    (arguments.results / "evaluate.json").write_text(json.dumps(results, indent=2) + "\n")
    (arguments.results / "evaluate.md").write_text(evaluation(results))
    print(evaluation(results))


def _load(hub: Path | None, dtype: Any) -> tuple[Any, Any, str]:
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as progress

    from morphing.zoo import model_folder

    progress.disable_progress_bar()
    progress.set_verbosity_error()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    folder = model_folder("base") if hub is None else hub / _MODEL
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    name = "the zoo's base" if hub is None else _MODEL.removeprefix("models/")
    return model, AutoTokenizer.from_pretrained(folder), name


def _measure(
    case: Case, model: Any, tokenizer: Any, repeats: int, results: dict[str, Any]
) -> dict[str, Any]:
    from morphing.benchmarks.evaluate import evaluate

    score = evaluate(model, tokenizer, case.benchmark, case.samples)  # warms up too
    tried: dict[int, float] = {}
    answers: Any = None
    for size in _BATCHES:
        _say(f"{case.name}: HFLM, batches of {size}")
        peer = _peer(model, tokenizer, case, size)
        started = time.perf_counter()
        answers = peer()
        tried[size] = time.perf_counter() - started
        rows = sum(len(sample.choices) or 1 for sample in case.samples)
        slower = [seconds > 1.15 * min(tried.values()) for seconds in tried.values()]
        if size >= rows or slower[-2:] == [True, True]:
            break
    best = min(tried, key=lambda size: tried[size])
    _say(f"{case.name}: in turn")
    ours = partial(evaluate, model, tokenizer, case.benchmark, case.samples)
    theirs = _peer(model, tokenizer, case, best)
    taken = in_turn(
        {"ours": Task(lambda i: ours(), repeats), "hflm": Task(lambda i: theirs(), repeats)}
    )
    shares, computed = _profile(model, tokenizer, case)
    tokens, logits = _needed(tokenizer, case, score)
    floor = _flops(model, tokens, logits) / (results["matmul_gflops"] * 1e9)
    return {
        "about": case.about,
        "samples": len(case.samples),
        "ours": summary(taken["ours"]),
        "hflm": {
            **summary(taken["hflm"]),
            "batch": best,
            "tried": {size: round(seconds, 2) for size, seconds in tried.items()},
        },
        "times_faster": round(min(taken["hflm"]) / min(taken["ours"]), 2),
        "agreement": _agreement(case, score, answers),
        "shares": shares,
        "tokens": {"needed": tokens, **computed["tokens"]},
        "logits": {"needed": logits, **computed["logits"]},
        "bare_seconds": round(floor, 3),
        "bare_share": round(floor / min(taken["ours"]), 3),
    }


def _peer(model: Any, tokenizer: Any, case: Case, size: int) -> Callable[[], Any]:
    """The same questions put to the harness's model."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=size)
    benchmark = case.benchmark
    if benchmark.kind == "multiple_choice":
        pairs = [(sample.prompt, option) for sample in case.samples for option in sample.choices]
        asked = [Instance("loglikelihood", {}, pair, 0) for pair in pairs]
        return partial(lm.loglikelihood, asked, disable_tqdm=True)
    settings = {"until": list(benchmark.stop), "max_gen_toks": benchmark.max_new_tokens}
    asked = [Instance("generate_until", {}, (s.prompt, settings), 0) for s in case.samples]
    return partial(lm.generate_until, asked, disable_tqdm=True)


def _agreement(case: Case, score: Any, answers: Sequence[Any]) -> dict[str, float]:
    """The share of samples with the same text or the same order of options."""
    if case.benchmark.kind != "multiple_choice":
        same = [output.text == text for output, text in zip(score.outputs, answers, strict=True)]
        return {"same": sum(same) / len(same)}
    values = iter(value for value, _ in answers)
    same, furthest = [], 0.0
    for sample, output in zip(case.samples, score.outputs, strict=True):
        theirs = [next(values) for _ in sample.choices]
        # Options may have a "=" of their own: each is taken off with its place.
        ours, rest = [], output.text
        for option in sample.choices:
            number, _, rest = rest.removeprefix(f"{option.strip()}=").partition(" ")
            ours.append(float(number))
        same.append(_order(ours) == _order(theirs))
        furthest = max(furthest, *(abs(a - b) for a, b in zip(ours, theirs, strict=True)))
    return {"same": sum(same) / len(same), "largest_difference": round(furthest, 5)}


def _order(values: Sequence[float]) -> list[int]:
    return sorted(range(len(values)), key=lambda at: values[at])


def _profile(model: Any, tokenizer: Any, case: Case) -> tuple[dict[str, float], Any]:
    """Shares of our time, and the tokens and logits that were computed."""
    from morphing.benchmarks import evaluate as module
    from morphing.benchmarks.engine.reader import Reader
    from morphing.benchmarks.engine.stopping import Ending

    spent: Counter[str] = Counter()
    counted: dict[str, Counter[str]] = {"tokens": Counter(), "logits": Counter()}

    def count(inputs: Any, logits: Any) -> None:
        counted["tokens"]["computed"] += inputs["input_ids"].numel()
        counted["logits"]["computed"] += logits.shape[0] * logits.shape[1]

    with (
        _timed(module, "prepare", "tokenize", spent),
        _timed(Reader, "_logits", "forward", spent, count),
        _timed(Ending, "reached", "decode", spent),
        _timed(Ending, "text", "decode", spent),
    ):
        started = time.perf_counter()
        module.evaluate(model, tokenizer, case.benchmark, case.samples)
        whole = time.perf_counter() - started
    spent["score"] = whole - sum(spent.values())
    return {name: round(seconds / whole, 4) for name, seconds in spent.items()}, counted


@contextmanager
def _timed(
    owner: Any, attribute: str, name: str, spent: Counter[str], see: Any = None
) -> Iterator[None]:
    original = getattr(owner, attribute)

    @wraps(original)
    def wrapper(*arguments: Any, **options: Any) -> Any:
        started = time.perf_counter()
        result = original(*arguments, **options)
        spent[name] += time.perf_counter() - started
        if see is not None:
            see(options, result)
        return result

    setattr(owner, attribute, wrapper)
    try:
        yield
    finally:
        setattr(owner, attribute, original)


def _needed(tokenizer: Any, case: Case, score: Any) -> tuple[int, int]:
    """Tokens that differ in themselves or in what is before them, and positions that are read."""
    from morphing.benchmarks.evaluate import prepare

    requests = [
        r for group in prepare(tokenizer, case.benchmark, case.samples).requests for r in group
    ]
    tree: dict[Any, Any] = {}
    nodes, reads = 0, set()
    for request in requests:
        at = tree
        # Of a given answer the last token is not read.
        ids = request.ids[: -1 if request.answer else None]
        for place, token in enumerate(ids):
            if token not in at:
                at[token] = {}
                nodes += 1
            at = at[token]
            if request.answer and place >= len(ids) - request.answer:
                reads.add(id(at))
    written = sum(output.tokens for output in score.outputs)
    if not written:
        return nodes, len(reads)
    return nodes + written - len(requests), written


def _flops(model: Any, tokens: int, logits: int) -> float:
    import torch

    head = model.get_output_embeddings()
    body = sum(
        module.weight.numel()
        for module in model.modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    )
    return 2.0 * (tokens * body + logits * head.weight.numel())


def _matmul(model: Any) -> float:
    """The most floating-point operations a second that torch does with the model's matrices."""
    import torch

    config = model.config
    weight = torch.randn(config.intermediate_size, config.hidden_size, dtype=model.dtype)
    rows = torch.randn(1024, config.hidden_size, dtype=model.dtype)

    def multiply(_: int) -> None:
        torch.nn.functional.linear(rows, weight)

    multiply(0)
    best = min(in_turn({"matmul": Task(multiply, 50)})["matmul"])
    return 2.0 * rows.numel() * config.intermediate_size / best


def _say(text: str) -> None:
    print(f"... {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
