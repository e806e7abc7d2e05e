"""The cards under Compose."""

from collections.abc import Iterable, Sequence
from html import escape

from morphing.benchmarks.benchmark import Benchmark, catalogue
from morphing.devices import DEVICES, resolve_device
from morphing.errors import MorphingError
from morphing.sources.source import Inspection, ModelHit
from morphing.ui.cards import chip, duration, grid, link, option, readable, short_name
from morphing.ui.choice import (
    METHOD_GROUPS,
    METHODS,
    SAMPLERS,
    ZOO_MODELS,
    Choice,
    Role,
    addable,
    inspected,
)
from morphing.ui.session import seconds_per_trial


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
        f"+ {escape(short_name(name))}</button>"
        for name in addable(choice)
    )
    left = chip("From the zoo") + rest if rest else ""
    if choice.sources:
        left += link("clear", "", "Start over with my own models")
    return f'{grid([base, *sources], "models")}<div class="m-row">{left}</div>'


def _model_card(name: str, role: str, actions: str, token: str | None) -> str:
    try:
        facts, error = _facts(inspected(name, token)), ""
    except MorphingError as problem:
        facts, error = "", f'<p class="m-error">{escape(str(problem))}</p>'
    text = ZOO_MODELS.get(name, name)
    return (
        f'<article class="m-card {role.lower()}"><header>{chip(role, role.lower())}'
        f'<span class="m-card-actions">{actions}</span></header>'
        f'<h3 title="{escape(name)}">{escape(short_name(name))}</h3>'
        f"<p>{escape(text)}</p>{error}<footer>{facts}</footer></article>"
    )


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
    return f"<small>{escape(' · '.join(facts))}</small>"


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
            f"<li><b>{escape(hit.id)}</b>{gated}<small>{readable(hit.downloads)} downloads</small>"
            f"{action}</li>"
        )
    return f'<ul class="m-hits">{"".join(rows)}</ul>'


def benchmarks(choice: Choice) -> str:
    """The catalogue as cards, and sparsity, which needs no dataset."""
    known = catalogue()
    ordered = sorted(known, key=lambda name: (name not in choice.roles, not known[name].local))
    cards = [_benchmark_card(known[name], choice.roles.get(name)) for name in ordered]
    states = [("sparsity", "Objective", choice.sparsity), ("sparsity", "Off", not choice.sparsity)]
    sparsity = (
        f'<article class="m-card benchmark {"on" if choice.sparsity else "off"}">'
        f"<h3>Sparsity</h3><p>How little the merge differs from the base: small changes"
        " keep more of what the base could do.</p>"
        f"<footer>{chip('no samples needed')}</footer>"
        f"{_segments('sparsity', states)}"
        "</article>"
    )
    return grid([*cards[: len(choice.roles)], sparsity, *cards[len(choice.roles) :]], "benchmarks")


def _benchmark_card(benchmark: Benchmark, role: Role | None) -> str:
    facts = [benchmark.dataset, benchmark.kind.replace("_", " ")]
    if benchmark.cross_domain:
        facts.append("cross-domain")
    roles = (("objective", "Objective"), ("report", "Report"), ("off", "Off"))
    segments = [(value, label, (role or "off") == value) for value, label in roles]
    return (
        f'<article class="m-card benchmark {role or "off"}">'
        f"<h3>{escape(benchmark.title or benchmark.name)}</h3>"
        f"<p>{escape(benchmark.description)}</p>"
        f"<footer>{''.join(chip(fact) for fact in facts)}</footer>"
        f"{_segments(benchmark.name, segments)}</article>"
    )


def _segments(name: str, segments: Sequence[tuple[str, str, bool]]) -> str:
    buttons = "".join(
        f'<button type="button" aria-pressed="{str(on).lower()}" {"disabled" if on else ""}'
        f' data-do="{action}" data-value="{escape(name)}">{label}</button>'
        for action, label, on in segments
    )
    return f'<div class="m-segments" role="group" aria-label="{escape(name)}">{buttons}</div>'


def methods(choice: Choice) -> str:
    """The merge methods, one chosen: the usual ones, and the rest to unfold."""

    def cards(keys: Iterable[str]) -> str:
        return grid(
            (option("method", key, *METHODS[key], key == choice.method) for key in keys), "three"
        )

    others = [key for keys in METHOD_GROUPS.values() for key in keys]
    groups = "".join(f"<h3>{title}</h3>{cards(keys)}" for title, keys in METHOD_GROUPS.items())
    return (
        cards(key for key in METHODS if key not in others)
        + f'<details class="m-more" {"open" if choice.method in others else ""}>'
        f"<summary>{len(others)} more methods</summary>{groups}</details>"
    )


def samplers(choice: Choice) -> str:
    """The samplers, one chosen."""
    return grid(
        (option("sampler", key, *words, key == choice.sampler) for key, words in SAMPLERS.items()),
        "four",
    )


def summary(choice: Choice, evaluations: int, samples: int) -> str:
    """The run to be, in a few lines."""
    roles = list(choice.roles.values())
    objectives = roles.count("objective") + choice.sparsity
    report = f", {roles.count('report')} reported only" if "report" in roles else ""
    answers = roles.count("objective") * samples * evaluations
    tasks = {name for name, role in choice.benchmarks if role == "objective"}
    pace = seconds_per_trial(choice.base, tasks, samples)
    time = f", about {duration(pace * evaluations)}" if pace else ""
    problem = f'<p class="m-error">{escape(choice.problem)}</p>' if choice.problem else ""
    lines = [
        (f"{len(choice.sources)} sources", f"onto {short_name(choice.base)}"),
        (METHODS[choice.method][0], "merges them"),
        (SAMPLERS[choice.sampler][0], f"proposes {evaluations} recipes"),
        (f"{objectives} objectives", f"to maximise{report}"),
        (f"{readable(answers)} answers", f"to score{time}"),
    ]
    items = "".join(f"<li><b>{escape(a)}</b> <span>{escape(b)}</span></li>" for a, b in lines)
    return f'<div class="m-summary"><h2>Your search</h2><ul>{items}</ul>{problem}</div>'


def devices() -> list[str]:
    """The devices this machine has."""

    def usable(name: str) -> bool:
        try:
            resolve_device(name)
        except MorphingError:
            return False
        return True

    return [name for name in DEVICES if usable(name)]
