"""What the cards under Compose say of methods, samplers, spaces, benchmarks and the zoo."""

from morphing.benchmarks.benchmark import Benchmark
from morphing.runs.spec import SearchOptions

METHODS = {
    "dare_ties": ("DARE-TIES", "Drops random changes, settles sign conflicts. The usual choice."),
    "dare_linear": ("DARE linear", "Drops random changes and adds up what is left."),
    "ties": ("TIES", "Keeps each source's largest changes and settles sign conflicts."),
    "task_arithmetic": ("Task arithmetic", "Adds the sources' changes to the base, weighted."),
    "linear": ("Linear", "A weighted average of the sources' weights."),
    "slerp": ("SLERP", "Goes from the base to one source along the sphere. One source only."),
    "della": ("DELLA", "Like DARE-TIES, but drops small changes more often than large ones."),
    "della_linear": ("DELLA linear", "Like DELLA, and adds up what is left, conflicts and all."),
    "breadcrumbs": ("Breadcrumbs", "Drops each source's smallest changes and its outliers."),
    "breadcrumbs_ties": ("Breadcrumbs TIES", "Like Breadcrumbs, and settles sign conflicts."),
    "sce": ("SCE", "Keeps the entries in which the sources differ most. Two sources or more."),
    "ram": ("RAM", "Averages what sources changed together, keeps what one alone did."),
    "ramplus_tl": ("RAM+", "Like RAM, but strengthens what one source alone changed. Two or more."),
    "multislerp": ("Multi-SLERP", "A mean of the sources' directions from the base. Two or more."),
    "nuslerp": ("NuSLERP", "Goes from one source to another along the sphere. Two sources."),
    "nearswap": ("NearSwap", "Takes a source's weights where they are near. One source only."),
    "passthrough": ("Passthrough", "Scales a source's weights as they are. One source only."),
}
METHOD_GROUPS = {
    "Drop what changed little": ("della", "della_linear", "breadcrumbs", "breadcrumbs_ties"),
    "Compare what the sources changed": ("sce", "ram", "ramplus_tl"),
    "Turn towards the sources": ("multislerp", "nuslerp"),
    "Work on a single source": ("nearswap", "passthrough"),
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
KINDS = {
    "generation": "written answer",
    "multiple_choice": "multiple choice",
    "perplexity": "perplexity",
    "code": "runs code",
    "lm_eval": "lm-eval task",
}


def skill_of(benchmark: Benchmark) -> str:
    """The group a benchmark is offered in."""
    for skill, names in SKILLS.items():
        if any(benchmark.name == name or benchmark.name.startswith(f"{name}-") for name in names):
            return skill
    return OWN_SKILL
