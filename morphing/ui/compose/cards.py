"""The cards under Compose."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf

from morphing.benchmarks.benchmark import Benchmark
from morphing.benchmarks.kinds.table import KINDS
from morphing.devices import DEVICES, resolve_device
from morphing.errors import MorphingError
from morphing.inert import as_html
from morphing.runs.measures import MEASURES, readable
from morphing.runs.progress import duration
from morphing.search.samplers import SAMPLERS
from morphing.sources.source import Inspection, ModelHit
from morphing.ui.cards import chip, empty, grid, link, option, pill, short_name
from morphing.ui.compose.choice import Choice, Role, Settings, addable, count_numbers, inspected
from morphing.ui.compose.words import (
    DEPTHS,
    METHOD_GROUPS,
    METHODS,
    STRATEGIES,
    USUAL_SAMPLERS,
    ZOO_MODELS,
)
from morphing.ui.limits import limits
from morphing.ui.session import pace

_NOTHING_CHOSEN = "No benchmark yet", "Take some from the catalogue below, or bring your own data."
_CAUTION = (
    "Only a public test split: a search on half of it contaminates it. The report uses the rest."
)


def models(choice: Choice, token: str | None) -> str:
    """Base and sources as cards, and the zoo's models that are left."""
    base = _model_card(choice.base, "Base", "", token)
    sources = [
        _model_card(
            name,
            "Source",
            link("base", name, "Make base") + link("remove", name, "✕", f"Remove {name}"),
            token,
        )
        for name in choice.sources
    ]
    rest = "".join(
        f'<button type="button" class="m-ghost" data-do="add" data-value="{name}">'
        f"+ {as_html(short_name(name))}</button>"
        for name in addable(choice)
    )
    left = chip("From the zoo") + rest if rest else ""
    if choice.sources:
        left += link("clear", "", "Start over with my own models")
    return f'{grid([base, *sources], "models")}<div class="m-row">{left}</div>'


def _model_card(name: str, role: str, actions: str, token: str | None) -> str:
    try:
        found = inspected(name, token)
        facts, told = _facts(found), "".join(map(_remark, found.remarks))
    except MorphingError as problem:
        facts, told = "", f'<p class="m-error">{as_html(str(problem))}</p>'
    text = ZOO_MODELS.get(name, name)
    return (
        f'<article class="m-card {role.lower()}"><header>{chip(role, role.lower())}'
        f'<span class="m-card-actions">{actions}</span></header>'
        f'<h3 title="{as_html(name)}">{as_html(short_name(name))}</h3>'
        f"<p>{as_html(text)}</p>{told}<footer>{facts}</footer></article>"
    )


def _remark(text: str) -> str:
    return f'<p class="m-note">{as_html(text)}</p>'


def _facts(found: Inspection) -> str:
    facts = [
        (found.architecture or "").removesuffix("ForCausalLM") or "adapter",
        f"{readable(found.parameters)} parameters",
        f"{found.layers} layers",
        found.dtype,
        f"{readable(found.bytes)}B",
    ]
    if found.base_models:
        facts.append(f"from {short_name(found.base_models[0])}")
    return f"<small>{as_html(' · '.join(facts))}</small>"


def hits(found: Sequence[ModelHit], choice: Choice) -> str:
    """Answers of a search on the Hub, each with a way to add it."""
    if not found:
        return '<p class="m-step">No model on the Hub has these words in its id.</p>'
    rows = []
    for hit in found:
        known = hit.id in (choice.base, *choice.sources)
        action = chip("chosen") if known else link("add", hit.id, "Add", f"Add {hit.id}")
        gated = chip("gated", "warn") if hit.gated else ""
        rows.append(
            f"<li><b>{as_html(hit.id)}</b>{gated}<small>{readable(hit.downloads)} downloads</small>"
            f"{action}</li>"
        )
    return f'<ul class="m-hits">{"".join(rows)}</ul>'


def benchmarks(choice: Choice) -> str:
    """The chosen benchmarks as cards, and what can be measured without a dataset."""
    known = choice.known
    cards = [_benchmark_card(known[name], role, choice) for name, role in choice.benchmarks]
    measures = (_measure_card(name, name in choice.measures) for name in MEASURES)
    chosen = grid(cards, "benchmarks") if cards else empty(*_NOTHING_CHOSEN)
    return f'{chosen}<h3 class="m-sub">Beside the scores</h3>{grid(measures, "measures")}'


def _benchmark_card(benchmark: Benchmark, role: Role, choice: Choice) -> str:
    # A path says more of the machine than of the data.
    local = benchmark.dataset.startswith(("/", "~", "."))
    dataset = short_name(benchmark.dataset) if local else benchmark.dataset
    facts = [dataset, KINDS[benchmark.kind].title]
    if benchmark.cross_domain:
        facts.append("cross-domain")
    if benchmark.direction == "minimize":
        facts.append("↓ less is better")
    roles = (("objective", "Objective"), ("report", "Report"), ("off", "Off"))
    segments = [(value, benchmark.name, label, role == value) for value, label in roles]
    bound, caution = "", ""
    if role == "objective":
        kept = benchmark.name in choice.floors
        bound = pill("floor", benchmark.name, "Never worse than any source", kept)
        if benchmark.contaminates:
            caution = f'<p class="m-caution">{as_html(_CAUTION)}</p>'
    return (
        f'<article class="m-card benchmark {role}">'
        f"<h3>{as_html(benchmark.title or benchmark.name)}</h3>"
        f"<p>{as_html(benchmark.description)}</p>{caution}"
        f"<footer>{''.join(chip(fact) for fact in facts if fact)}</footer>"
        f"{_segments(benchmark.name, segments)}{bound}</article>"
    )


def _measure_card(name: str, chosen: bool) -> str:
    title, text = MEASURES[name].title, MEASURES[name].sentence
    return option("measure", name, f"{title}\u00a0{_arrow(name)}", text, chosen)


def _arrow(measure: str) -> str:
    return "↑" if MEASURES[measure].direction == "maximize" else "↓"


def _segments(name: str, segments: Iterable[tuple[str, str, str, bool]]) -> str:
    """Buttons of which one is on: action, value, label, whether it is that one."""
    buttons = "".join(
        f'<button type="button" aria-pressed="{str(on).lower()}" {"disabled" if on else ""}'
        f' data-do="{action}" data-value="{as_html(value)}">{label}</button>'
        for action, value, label, on in segments
    )
    return f'<div class="m-segments" role="group" aria-label="{as_html(name)}">{buttons}</div>'


def space(choice: Choice) -> str:
    """What is searched, one of three, and how fine its numbers are."""
    cards = grid(
        (
            option("strategy", key, *words, key == choice.strategy)
            for key, words in STRATEGIES.items()
        ),
        "three",
    )
    if not choice.merges_weights:
        return cards
    depths = [("depth", key, label, key == choice.depth) for key, label in DEPTHS.items()]
    kinds = [
        ("kinds", "alike", "All alike", not choice.kinds),
        ("kinds", "apart", "Attention, MLP and the rest apart", choice.kinds),
    ]
    return (
        f'{cards}<div class="m-fine"><div><b>Layers</b>{_segments("Layers", depths)}</div>'
        f"<div><b>Modules</b>{_segments('Modules', kinds)}</div></div>"
    )


def methods(choice: Choice) -> str:
    """The merge methods, one chosen: the usual ones, and the rest to unfold."""

    def cards(keys: Iterable[str]) -> str:
        return grid(
            (option("method", key, *METHODS[key], key == choice.method) for key in keys), "three"
        )

    others = [key for keys in METHOD_GROUPS.values() for key in keys]
    groups = "".join(f"<h3>{title}</h3>{cards(keys)}" for title, keys in METHOD_GROUPS.items())
    return cards(key for key in METHODS if key not in others) + _more(
        f"{len(others)} more methods", groups, choice.method in others
    )


def samplers(choice: Choice) -> str:
    """The samplers, one chosen: the usual ones, and the rest to unfold."""

    def cards(keys: Iterable[str]) -> str:
        known = (SAMPLERS[key] for key in keys)
        return grid(
            (
                option("sampler", s.name, s.title, s.sentence, s.name == choice.sampler)
                for s in known
            ),
            "four",
        )

    others = [key for key in SAMPLERS if key not in USUAL_SAMPLERS]
    return cards(USUAL_SAMPLERS) + _more(
        f"{len(others)} more samplers", cards(others), choice.sampler in others
    )


def _more(title: str, content: str, unfolded: bool) -> str:
    opened = "open" if unfolded else ""
    return f'<details class="m-more" {opened}><summary>{title}</summary>{content}</details>'


def summary(choice: Choice, settings: Settings, token: str | None) -> str:
    """The run to be, in a few lines, or what stands in its way."""
    objectives = len(choice.tasks) + len(choice.measures)
    reported = len(choice.benchmarks) - len(choice.tasks)
    report = f", {reported} reported only" if reported else ""
    answers = len(choice.tasks) * settings.samples * settings.evaluations
    seconds = pace(choice.base, set(choice.tasks), settings.samples)
    time = f", about {duration(seconds * settings.evaluations)}" if seconds else ""
    try:
        numbers, problem = count_numbers(choice, settings, token), ""
    except MorphingError as error:
        numbers, problem = (), str(error)
    made = METHODS[choice.method][0] if choice.merges_weights else "Layer paths"
    then = "then layer paths, " if choice.strategy == "ps+dfs" else ""
    counted = " + ".join(map(str, numbers)) + " numbers a recipe" if numbers else "to search"
    shared = f", {settings.workers} at a time" if settings.workers > 1 else ""
    lines = [
        (f"{len(choice.sources)} sources", f"onto {short_name(choice.base)}"),
        (made, f"{then}{counted}"),
        (SAMPLERS[choice.sampler].title, f"proposes {settings.evaluations} recipes{shared}"),
        (f"{objectives} objectives", f"to trade off{report}"),
        (f"{readable(answers)} answers", f"to score{time}"),
    ]
    if limits().hours < inf:
        lines.append((f"{limits().hours:g} hours", "at most, as for every search on this page"))
    items = "".join(f"<li><b>{as_html(a)}</b> <span>{as_html(b)}</span></li>" for a, b in lines)
    told = f'<p class="m-error">{as_html(problem)}</p>' if problem else ""
    return f'<div class="m-summary"><h2>Your search</h2><ul>{items}</ul>{told}</div>'


def devices() -> list[str]:
    """The devices this machine has."""

    def usable(name: str) -> bool:
        try:
            resolve_device(name)
        except MorphingError:
            return False
        return True

    return [name for name in DEVICES if usable(name)]
