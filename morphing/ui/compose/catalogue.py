"""What can be measured: the catalogue by skill and language, to look through and take from."""

from __future__ import annotations

from collections.abc import Iterable

from morphing.benchmarks.benchmark import Benchmark
from morphing.benchmarks.kinds.table import KINDS
from morphing.errors import MorphingError
from morphing.inert import as_html
from morphing.ui.cards import chip, empty, pill
from morphing.ui.compose.choice import Choice
from morphing.ui.compose.words import LANGUAGES, OWN_SKILL, SKILLS, skill_of


def offer(choice: Choice, query: str = "", skill: str = "") -> str:
    """The benchmarks that are not chosen and fit the words and the skill, in groups."""
    found = [each for each in choice.known.values() if _fits(each, query)]
    by_skill = {name: [e for e in found if skill_of(e) == name] for name in (OWN_SKILL, *SKILLS)}
    filters = [pill("skill", "", f"All {len(found)}", not skill)]
    filters += [
        pill("skill", name, f"{name} {len(members)}", name == skill)
        for name, members in by_skill.items()
        if members
    ]
    groups = [
        _group(name, members, choice)
        for name, members in by_skill.items()
        if members and skill in ("", name)
    ]
    body = "".join(groups) or empty("Nothing by these words", "Below, any dataset can be had.")
    return (
        f'<div class="m-row m-filters">{"".join(filters)}</div>'
        f'<div class="m-offers" tabindex="0" aria-label="Benchmarks to choose from">{body}</div>'
    )


def refusal(benchmark: Benchmark) -> str | None:
    """Why a benchmark cannot be scored on this machine, or None."""
    from morphing.benchmarks.leave import require_leave

    try:
        require_leave(benchmark)
    except MorphingError as error:
        return str(error)
    return None


def _fits(benchmark: Benchmark, query: str) -> bool:
    said = (
        benchmark.name,
        benchmark.title,
        benchmark.description,
        benchmark.dataset,
        skill_of(benchmark),
        KINDS[benchmark.kind].title,
        LANGUAGES.get(benchmark.language or "", benchmark.language or ""),
    )
    text = " ".join(said).lower()
    return all(word in text for word in query.lower().split())


def _group(title: str, members: list[Benchmark], choice: Choice) -> str:
    """Rows of a skill; translations of one benchmark share a row."""
    families: dict[str, list[Benchmark]] = {}
    for each in members:
        families.setdefault(_stem(each), []).append(each)
    rows = "".join(
        _row(family[0], choice) if len(family) == 1 else _family(family, choice)
        for family in families.values()
    )
    return f"<section><h3>{as_html(title)}</h3><ul>{rows}</ul></section>"


def _stem(benchmark: Benchmark) -> str:
    return benchmark.name.removesuffix(f"-{benchmark.language}")


def _row(benchmark: Benchmark, choice: Choice) -> str:
    facts = [chip(LANGUAGES.get(benchmark.language or "", benchmark.language or ""))]
    facts = facts if benchmark.language else []
    facts.append(chip(KINDS[benchmark.kind].title))
    facts += [_test_only()] if benchmark.contaminates else []
    reason = refusal(benchmark)
    told = f'<small class="m-refused">{as_html(reason)}</small>' if reason else ""
    return (
        f'<li class="m-offer{" refused" if reason else ""}">'
        f"<div><b>{as_html(benchmark.title or benchmark.name)}</b>{''.join(facts)}"
        f"<small>{as_html(benchmark.description)}</small>{told}</div>"
        f'<span class="m-offer-do">{_buttons(benchmark, choice, reason is None)}</span></li>'
    )


def _buttons(benchmark: Benchmark, choice: Choice, usable: bool) -> str:
    if role := choice.roles.get(benchmark.name):
        return chip("objective" if role == "objective" else "in the report", "front")
    title = as_html(benchmark.title or benchmark.name)
    disabled = "" if usable else " disabled"
    return "".join(
        f'<button type="button" class="m-take" data-do="{action}"{disabled}'
        f' data-value="{as_html(benchmark.name)}" aria-label="{title}: {label}">{label}</button>'
        for action, label in (("objective", "+ Objective"), ("report", "Report"))
    )


def _family(members: list[Benchmark], choice: Choice) -> str:
    first = members[0]
    languages = "".join(
        pill(
            "off" if each.name in choice.roles else "objective",
            each.name,
            LANGUAGES.get(each.language or "", each.language or each.name),
            each.name in choice.roles,
        )
        for each in members
    )
    title = (first.title or first.name).partition(" (")[0]
    facts = chip(KINDS[first.kind].title) + (_test_only() if _any_test(members) else "")
    return (
        f'<li class="m-offer family"><div><b>{as_html(title)}</b>{facts}'
        f"<small>One in {len(members)} languages; each is an objective of its own.</small>"
        f'<div class="m-tongues">{languages}</div></div></li>'
    )


def _any_test(members: Iterable[Benchmark]) -> bool:
    return any(each.contaminates for each in members)


def _test_only() -> str:
    return (
        '<span class="m-chip warn" title="Its only split is the public test: searching on half of'
        ' it contaminates it.">test only</span>'
    )
