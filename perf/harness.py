"""The same questions through Morphing and through lm-evaluation-harness's own HFLM: same answers?

    python perf/harness.py HUB [--choices 100] [--texts 25] [--tokens 32] [--only NAME,NAME]
    python perf/harness.py HUB --report          # write harness.md again

HUB is a folder of a Hub's layout with SmolLM2-135M-Instruct and the test-bed's datasets. A local
Hub serves it. What is asked stands in tests/benchmarks/twins.py; all in float32, HFLM's batches of
8. What is in harness.json beside the results is not asked again.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[1]
RESULTS = CHECKOUT / "perf" / "results"
PACKAGES = ("lm_eval", "transformers", "torch")
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"


def main() -> None:
    options = _options()
    path = options.results / "harness.json"
    if not options.report:
        sys.path.insert(0, str(CHECKOUT))
        os.environ["MORPHING_TESTBED"] = str(options.hub.resolve())
        from tests.hub.server import start_hub

        with tempfile.TemporaryDirectory() as folder, start_hub(Path(folder) / "hub") as hub:
            os.environ.update(hub.env)
            _compare_all(options, path, Path(folder))
    found = json.loads(path.read_text(encoding="utf-8"))
    (options.results / "harness.md").write_text(markdown(found), encoding="utf-8")


def _compare_all(options: argparse.Namespace, path: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tests.benchmarks.twins import compare, solutions, twins

    found: dict[str, Any] = {"twins": {}}
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
    found["solutions"] = asdict(solutions())
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    for twin in twins(folder, options.tokens):
        if twin.name in found["twins"] or (options.only and twin.name not in options.only):
            continue
        count = options.texts if twin.generates else options.choices
        began = time.monotonic()
        agreement = compare(twin, model, tokenizer, folder, count, options.tokens)
        found["twins"][twin.name] = asdict(agreement) | {"chat": twin.chat}
        found |= {"tokens": options.tokens, "versions": {name: version(name) for name in PACKAGES}}
        _write(path, found)
        seconds = time.monotonic() - began
        print(f"{twin.name}: {agreement.same} of {agreement.n} in {seconds:.0f} s", flush=True)
    _write(path, found)


def _write(path: Path, found: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def markdown(found: dict[str, Any]) -> str:
    """The report: a row a twin, then every difference."""
    twins = found["twins"]
    texts = [each for each in twins.values() if each["texts"] is not None]
    same = sum(each["same"] for each in twins.values()), sum(each["n"] for each in twins.values())
    alike = sum(each["texts"] for each in texts), sum(each["n"] for each in texts)
    lines = [
        "# The same answers as lm-evaluation-harness",
        "",
        f"`python perf/harness.py HUB`: {MODEL} in float32, the same questions through Morphing and"
        " through the harness's own HFLM. A row `lm_eval_…` is the harness's own task asked through"
        " `lm_eval:`; the others are a declaration of ours beside the harness's own task, or beside"
        " a task written to ask in the same words (`tests/benchmarks/twins.py`)."
        f" Generated texts end after {found['tokens']} tokens.",
        "",
        ", ".join(f"{name} {number}" for name, number in found["versions"].items()) + ".",
        "",
        "*Same*: the same extracted answer, or the same order of all options' log-likelihoods, or"
        " the same bits a byte to a thousandth. *Same text*: of the whole generated text."
        " *Same number*: our `last_number` and the harness's `flexible-extract` on HFLM's text.",
        "",
        "| | n | same | same text | same number |",
        "| --- | ---: | ---: | ---: | ---: |",
        *(_row(name, each) for name, each in twins.items()),
        "",
        f"Together {_share(*same)} of {same[1]} the same"
        + (f", and {_share(*alike)} of {alike[1]} texts letter by letter." if texts else "."),
        "",
    ]
    read = found["solutions"]
    lines += [
        f"Of GSM8K's {read['n']} written solutions, without their last line, `last_number` and"
        f" `flexible-extract` read the same number in {read['same']}.",
        "",
    ]
    twins = {**twins, "solutions": read}
    for title, key in (("Differences", "differences"), ("Numbers read differently", "elsewhere")):
        told = [f"- `{name}` {line}" for name, each in twins.items() for line in each[key]]
        lines += [f"## {title}", "", *(told or ["None."]), ""]
    return "\n".join(lines)


def _row(name: str, each: dict[str, Any]) -> str:
    asked = f"`{name}`" + (", chat" if each["chat"] else "")
    counts = (each[key] for key in ("same", "texts", "extraction"))
    cells = ("" if count is None else _share(count, each["n"]) for count in counts)
    return "| " + " | ".join([asked, str(each["n"]), *cells]) + " |"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("hub", type=Path, metavar="HUB")
    parser.add_argument("--choices", type=int, default=100, help="samples of multiple choices")
    parser.add_argument("--texts", type=int, default=25, help="samples of generations")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--only", type=lambda text: text.split(","), default=[])
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR")
    parser.add_argument("--report", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
