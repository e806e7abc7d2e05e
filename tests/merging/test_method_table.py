"""The one table of methods, against mergekit's registry and everything that reads it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from morphing.merging.methods import FAST, MERGEKITS, METHODS, SEARCHABLE, nearest, refusal

DOCUMENT = Path(__file__).parents[2] / "docs" / "spec.md"


def test_methods_and_parameters_are_mergekits() -> None:
    """Every parameter with its default and scope; task arithmetic has a density it never reads."""
    from mergekit.merge_methods.base import ParameterScope
    from mergekit.merge_methods.registry import registered_methods

    kinds = {bool: "switch", int: "whole number", float: "number"}
    specs = {method.spec.name: method.spec for method in registered_methods()}
    assert set(MERGEKITS) == set(specs) and len(MERGEKITS) == 20
    for name, spec in specs.items():
        theirs = {p.name: p for p in spec.parameters}
        if name == "task_arithmetic":
            del theirs["density"]
        assert set(METHODS[name].by_name) == set(theirs), name
        for parameter in METHODS[name].parameters:
            other = theirs[parameter.name]
            assert parameter.shared == (other.scope == ParameterScope.SHARED), parameter
            assert parameter.required == other.required, parameter
            assert parameter.default == (None if other.required else other.default), parameter
            assert parameter.kind == kinds.get(other.value_type, "number"), parameter
        weighs = any(p.scope == ParameterScope.INPUT for p in spec.input_parameters)
        assert METHODS[name].weighs_base == weighs, name


def test_ranges_searched_are_ranges_allowed() -> None:
    for method in METHODS.values():
        for parameter in (*method.numbers, *method.extras):
            low, high = parameter.allowed
            assert low <= parameter.searched.low < parameter.searched.high <= high, parameter
        for setting in method.settings:
            assert method.by_name[setting].kind == "switch"


def test_the_fast_ones_are_those_with_kernels() -> None:
    from morphing.merging.rows.merger import KERNELS

    assert set(FAST) == set(KERNELS)


def test_the_app_offers_what_can_be_searched_in_the_tables_order() -> None:
    from morphing.ui.compose.words import METHOD_GROUPS
    from morphing.ui.compose.words import METHODS as shown

    assert tuple(shown) == SEARCHABLE
    for name, (title, sentence) in shown.items():
        assert (title, sentence) == (METHODS[name].title, METHODS[name].sentence)
    grouped = [name for names in METHOD_GROUPS.values() for name in names]
    assert sorted(grouped) == sorted(name for name in SEARCHABLE if METHODS[name].group)


def test_the_document_says_what_is_searched_and_where() -> None:
    rows = re.findall(r"^\| (`[a-z_`, ]+`) \|(.*)\|$", DOCUMENT.read_text(), re.MULTILINE)
    said = {name: text for names, text in rows for name in re.findall(r"`(\w+)`", names)}
    for name in SEARCHABLE:
        for parameter in METHODS[name].numbers:
            low, high = parameter.searched.low, parameter.searched.high
            written = rf"`{parameter.name}`[^0-9]*(`\w+`[^0-9]*)*{low:g} to {high:g}"
            assert re.search(written.replace("1e-0", "1e-"), said[name]), (name, parameter.name)
    for name in set(MERGEKITS) - set(SEARCHABLE):
        assert "nothing" in said[name]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("TIES", "ties"),
        ("Dare-TIES", "dare_ties"),
        ("dare ties", "dare_ties"),
        ("Linear DARE", "dare_linear"),
        ("task-arithmetic", "task_arithmetic"),
        ("Task Arithmetic", "task_arithmetic"),
        ("SLERP", "slerp"),
        ("multi-slerp", "multislerp"),
        ("modelstock", "model_stock"),
        ("Model Stock", "model_stock"),
        ("model breadcrumbs", "breadcrumbs"),
        ("breadcrumbs-ties", "breadcrumbs_ties"),
        ("RAM+", "ramplus_tl"),
        ("passtrough", "passthrough"),
        ("liner", "linear"),
        ("arcee-fusion", "arcee_fusion"),
        ("blend", None),
        ("", None),
        (3, None),
        (None, None),
    ],
)
def test_a_misspelt_method_is_recognised(written: object, meant: str | None) -> None:
    assert nearest(written) == meant


def test_every_method_is_found_by_any_of_its_names() -> None:
    for method in METHODS.values():
        for name in (method.name, method.name.upper(), method.title, *method.others):
            assert nearest(name) == method.name, name


def test_a_search_with_an_unknown_method_says_what_was_meant() -> None:
    assert "did you mean 'dare_ties'" in str(refusal("DARE-TIES", 2))
    assert refusal("dare_ties", 2) is None
