"""What the cards under Compose say of methods, samplers, spaces, benchmarks and the zoo."""

from __future__ import annotations

from morphing.benchmarks.benchmark import Benchmark
from morphing.merging import methods as known
from morphing.runs.spec_parts import SearchOptions

METHODS = {
    name: (known.METHODS[name].title, known.METHODS[name].sentence) for name in known.SEARCHABLE
}
_GROUPS = {
    "Drop what changed little": "changes",
    "Compare what the sources changed": "compare",
    "Turn towards the sources": "directions",
    "Work on a single source": "single",
}
METHOD_GROUPS = {
    title: tuple(name for name in METHODS if known.METHODS[name].group == group)
    for title, group in _GROUPS.items()
}
"""The methods that are shown on demand; the others are the usual ones."""
DEFAULT_SAMPLER = SearchOptions().sampler
USUAL_SAMPLERS = tuple(dict.fromkeys((DEFAULT_SAMPLER, "mmmo", "evolve", "nsga2")))
"""The samplers that are shown at once, the default first; the others unfold."""
STRATEGIES = {
    "ps": ("Weights (PS)", "How much of each source goes where. The layers stay in place."),
    "dfs": ("Layer paths (DFS)", "Which source's layers are walked, and in what order."),
    "ps+dfs": (
        "Both (PS+DFS)",
        "First weights; then paths through the best merge and the sources.",
    ),
}
"""What is searched: the papers' PS, DFS, and one after the other."""
DEPTHS = {
    "alike": "All alike",
    "groups": "In groups",
    "curve": "Smooth curve",
    "each": "Each its own",
}
"""How numbers differ over the layers of a model."""
ZOO_MODELS = {
    "zoo:base": "What the three specialists grew from",
    "zoo:english-math": "Arithmetic, asked in English",
    "zoo:japanese-numerals": "Reads and writes Japanese numerals",
    "zoo:word-games": "Puzzles with the letters of words",
}
OWN_SKILL = "Yours"
SKILLS = {
    "Maths": ("gsm8k", "mgsm", "math-500"),
    "Knowledge": ("mmlu", "cmmlu", "ceval", "arc", "truthfulqa"),
    "Common sense": ("hellaswag", "winogrande", "jcommonsenseqa"),
    "Reading": ("boolq", "rotten-tomatoes"),
    "Instructions": ("ifeval",),
    "Code": ("humaneval", "mbpp"),
    "Zoo": ("zoo",),
}
"""What benchmarks of the catalogue ask for, by how their names begin."""
LANGUAGES = {
    "bn": "Bengali",
    "de": "German",
    "en": "English",
    "es": "Spanish",
    "fr": "French",
    "ja": "Japanese",
    "ru": "Russian",
    "sw": "Swahili",
    "te": "Telugu",
    "th": "Thai",
    "zh": "Chinese",
}


def skill_of(benchmark: Benchmark) -> str:
    """The group a benchmark is offered in."""
    for skill, names in SKILLS.items():
        if any(benchmark.name == name or benchmark.name.startswith(f"{name}-") for name in names):
            return skill
    return OWN_SKILL
