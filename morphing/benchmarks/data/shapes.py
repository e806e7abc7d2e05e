"""Shapes that datasets have: from columns and a few rows to a benchmark's fields."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from morphing.benchmarks.data.column_names import (
    ANSWER,
    CONTEXT,
    LABEL,
    OPTION_SETS,
    OPTIONS,
    PAIRS,
    QUESTION,
    RIGHT_AND_WRONG,
    TEXT,
)
from morphing.benchmarks.data.columns import (
    Table,
    is_number,
    is_struct,
    is_structs,
    is_text,
    is_texts,
    plain,
    ref,
    show,
)

Fields = dict[str, Any]
"""Fields of a declaration: kind, prompt, target and what else the shape needs."""


_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_MOST_CLASSES = 20
_SHORT = 5  # words; longer answers are compared by how alike they are


def fields_of(table: Table, given: Mapping[str, str]) -> Fields | None:
    """The fields that fit, None where nothing does; ``given`` says what some columns are for."""
    shapes = (
        _preference,
        _multiple_choice,
        _classes,
        _conversation,
        _translation,
        _generation,
        _text,
    )
    return next((fields for shape in shapes if (fields := shape(table, given))), None)


# --- the better of two answers -------------------------------------------------------------------


def _preference(table: Table, given: Mapping[str, str]) -> Fields | None:
    """Pairs of a chosen and a rejected answer, as preference optimisation has them.

    Scored by likelihood, so that it is no matter that the chosen answer always comes first.
    """
    chosen, rejected = table.find(["chosen"]), table.find(["rejected"])
    if chosen is None or rejected is None or given:
        return None
    prompt = table.find(QUESTION, chosen, rejected)
    answers = [_last_turn(table, column) for column in (chosen, rejected)]
    asked = _first_turn(table, prompt or chosen)
    if asked is None or not all(answers):
        return None
    return {
        "kind": "multiple_choice",
        "prompt": asked,
        "choices": answers,
        "target": "0",
        "normalize": "characters",
        "chat": True,
    }


def _last_turn(table: Table, column: str) -> str | None:
    """The template of an answer: a text, or the last turn of a conversation."""
    if table.all(column, is_text):
        return show(column)
    if table.all(column, lambda value: is_structs(value, "role", "content")):
        return "{{ (" + ref(column) + " | last)['content'] }}"
    return None


def _first_turn(table: Table, column: str) -> str | None:
    """The template of what was asked: a text, or the first turn of the user in a conversation."""
    if table.all(column, lambda value: is_structs(value, "role", "content")):
        by = f"{ref(column)} | selectattr('role', 'equalto', 'user') | first"
        return "{{ (" + by + ")['content'] }}"
    is_prompt = plain(column) != "chosen" and table.all(column, is_text)
    return show(column) if is_prompt else None


# --- one of several options ----------------------------------------------------------------------


@dataclass(frozen=True)
class _Options:
    """Options of a row: what gives them in a declaration, here, and the columns they are in."""

    choices: str | list[str]
    of: Callable[[Mapping[str, Any]], list[str]]
    columns: tuple[str, ...]
    target: str | None = None
    """Where the dataset marks the right one among them."""


def _multiple_choice(table: Table, given: Mapping[str, str]) -> Fields | None:
    options = _options(table, given)
    if options is None:
        return None
    question = given.get("prompt") or table.find((*QUESTION, *TEXT), *options.columns)
    answer = given.get("target") or table.find(ANSWER, question, *options.columns)
    target = options.target or (answer and _index(table, answer, options))
    if question is None or not target:
        return None
    context = given.get("context") or table.find(CONTEXT, question, answer, *options.columns)
    continues = any(plain(column).startswith("ending") for column in options.columns)
    before = f"{show(context)}\n" if context and not continues else ""
    premise = table.find(["premise"])
    if premise and table.all(question, lambda value: value in ("cause", "effect")):  # COPA
        joined = " {{ 'because' if " + ref(question) + " == 'cause' else 'so' }}"
        question, continues = premise, True
    else:
        joined = ""
    return {
        "kind": "multiple_choice",
        "prompt": show(question) + joined
        if continues
        else f"{before}Question: {show(question)}\nAnswer:",
        "choices": options.choices,
        "target": target,
        "normalize": "characters",
    }


def _options(table: Table, given: Mapping[str, str]) -> _Options | None:
    wanted = given.get("choices")
    if wanted is None or wanted in table.columns:
        column = wanted or table.find(OPTIONS)
        if column is not None and (found := _option_list(table, column)):
            return found
    if wanted is not None:
        return _option_columns(table, re.split(r"\s*,\s*", wanted))
    spelt = {plain(column): column for column in table.columns}
    for names in OPTION_SETS:
        if all(name in spelt for name in names):
            return _option_columns(table, [spelt[name] for name in names])
    marked = [column for column in table.columns if RIGHT_AND_WRONG.fullmatch(plain(column))]
    right = [column for column in marked if RIGHT_AND_WRONG.fullmatch(plain(column))[1]]  # type: ignore[index]
    if len(right) == 1 and len(marked) > 1 and all(table.all(c, is_text) for c in marked):
        wrong = [column for column in marked if column not in right]
        found = _option_columns(table, [*right, *wrong])
        return None if found is None else replace(found, target="0")
    return None


def _option_columns(table: Table, columns: Sequence[str]) -> _Options | None:
    if len(columns) < 2:
        return None
    listed = ", ".join(map(ref, columns))

    def of(row: Mapping[str, Any]) -> list[str]:
        return [str(row[column]) for column in columns if row.get(column) not in (None, "")]

    if all(len(of(row)) == len(columns) for row in table.rows):
        return _Options([f" {show(column)}" for column in columns], of, tuple(columns))
    return _Options(f"[{listed}] | select | map('prefixed', ' ')", of, tuple(columns))


def _option_list(table: Table, column: str) -> _Options | None:
    name = ref(column)
    if table.all(column, lambda value: is_texts(value) and len(value) > 1):
        listed, labels = name, ""
    elif table.all(column, lambda value: is_struct(value, "text", "label")):
        listed, labels = f"{name}.text", f"{name}.label"
    elif table.all(column, lambda value: is_struct(value, "choices", "labels")):
        right = "{{ " + name + ".labels.index(1) }}"
        return _Options(
            f"{name}.choices | map('prefixed', ' ')",
            lambda row: row[column]["choices"],
            (column,),
            right,
        )
    elif table.all(column, lambda value: is_structs(value, "text", "label")):
        listed = f"{name} | map(attribute='text')"
        labels = f"({name} | map(attribute='label') | list)"
    else:
        return None
    choices = f"{listed} | map('prefixed', ' ')"
    if not labels:
        return _Options(choices, lambda row: list(row[column]), (column,))
    answer = table.find(ANSWER, column)
    if answer is None:
        return None
    return _Options(choices, lambda row: [], (column,), _in(labels, ref(answer)))


def _in(listed: str, value: str) -> str:
    return "{{ " + f"{listed}.index({value})" + " }}"


def _index(table: Table, answer: str, options: _Options) -> str | None:
    """The template of the right option's index, from however the answer is written."""
    pairs = [(row.get(answer), options.of(row)) for row in table.rows]
    name = ref(answer)
    if all(value in texts for value, texts in pairs):
        listed = ", ".join(map(ref, options.columns))
        return _in(f"[{listed}]" if len(options.columns) > 1 else ref(options.columns[0]), name)
    if all(isinstance(v, str) and re.fullmatch(r"\W*[A-Za-z]\W*", v) for v, _ in pairs):
        letter = f"({name} | upper | replace('(', '') | replace(')', '')).strip(' .')"
        return _in(f"'{_LETTERS[: max(len(texts) for _, texts in pairs)]}'", letter)
    if not all(re.fullmatch(r"\d+", str(value)) for value, _ in pairs):
        return None
    numbers = [(int(str(value)), len(texts)) for value, texts in pairs]
    if all(number < count for number, count in numbers):
        return show(answer)
    if all(1 <= number <= count for number, count in numbers):
        return "{{ " + name + " | int - 1 }}"
    return None


# --- one of a few classes ------------------------------------------------------------------------


def _classes(table: Table, given: Mapping[str, str]) -> Fields | None:
    asked = given.get("prompt")
    pairs = [[table.find([name]) for name in pair] for pair in PAIRS]
    text = asked or table.find((*TEXT, *QUESTION))
    text = text or next((pair[0] for pair in pairs if all(pair)), None)
    label = given.get("target") or table.find((*LABEL, *ANSWER), text)
    pair = next((pair for pair in pairs if all(pair) and label not in pair), None)
    if text is None or label is None:
        return None
    named = _named_classes(table, label)
    if named is None:
        return None
    names, target = named
    context = given.get("context") or table.find(CONTEXT, text, label)
    columns = pair if pair and not asked else [context, text]
    asking = "".join(f"{_title(c)}: {show(c)}\n" for c in columns if c is not None)
    return {
        "kind": "multiple_choice",
        "prompt": f"{asking}{_title(label)}:",
        "choices": [f" {name}" for name in names],
        "target": target,
    }


def _named_classes(table: Table, label: str) -> tuple[Sequence[str], str] | None:
    """The names of a column's classes, and the template of a row's index among them."""
    values = table.values(label)
    if names := table.classes.get(label):
        return (names, show(label)) if len(names) > 1 else None
    if values and all(isinstance(value, bool) for value in values):
        return ("no", "yes"), "{{ " + ref(label) + " | int }}"
    if plain(label) in LABEL and (numbers := _whole_numbers(values)):
        return [str(number) for number in numbers], _in(
            repr([str(number) for number in numbers]), f"{ref(label)} | string | trim"
        )
    if not values or not all(is_text(value) and "{" not in value for value in values):
        return None
    names = sorted(set(values))
    # Answers in words recur too, but seldom: classes do all the time.
    if not 2 <= len(names) <= min(_MOST_CLASSES, len(values) // 3):
        return None
    numeric = all(re.fullmatch(r"-?[\d.,]+", name) for name in names)
    return None if numeric else (names, _in(repr(names), ref(label)))


def _whole_numbers(values: Sequence[Any]) -> list[int]:
    """The classes of a column of whole numbers, few and each seen often; none of another column."""
    if not all(re.fullmatch(r"\s*-?\d+\s*", str(value)) for value in values):
        return []
    numbers = sorted({int(str(value)) for value in values})
    return numbers if 2 <= len(numbers) <= min(_MOST_CLASSES, len(values) // 3) else []


def _title(column: str) -> str:
    return column.replace("_", " ").strip().capitalize()


# --- a written answer ----------------------------------------------------------------------------


def _generation(table: Table, given: Mapping[str, str]) -> Fields | None:
    question = given.get("prompt") or table.find(QUESTION)
    answer = given.get("target") or table.find(ANSWER, question)
    context = given.get("context") or table.find(CONTEXT, question, answer)
    if question is None and context is not None and answer is not None:
        text = f"{show(context)}\n\n{_title(answer)}:"
        return {"prompt": text, **_answered(table, answer)}
    if question is None or answer is None or not table.all(question, is_text):
        return None
    answered = _answered(table, answer)
    if not answered or (not given and table.find(("choices", "options"), question, answer)):
        return None  # options that could not be read are part of what is asked
    if answered.get("extract") == "boxed":
        asked = show(question) + "\n\nReason step by step and end with the answer in \\boxed{}."
    elif plain(question) in ("instruction", "prompt", "input"):
        asked = show(question)
        if context is not None:
            asked += "{% if " + ref(context) + " %}\n\n" + show(context) + "{% endif %}"
    else:
        before = f"{show(context)}\n\n" if context is not None else ""
        asked = f"{before}Question: {show(question)}\nAnswer:"
    return {"prompt": asked, **answered}


def _answered(table: Table, answer: str) -> Fields:
    """How an answer is found and compared, from what the column's answers look like."""
    fields: Fields = {"kind": "generation", "chat": "auto", "target": show(answer)}
    name = ref(answer)
    if table.all(answer, lambda value: isinstance(value, Mapping) and is_texts(value.get("text"))):
        return fields | {"target": "{{ " + name + ".text[0] }}", **_SHORT_TEXT}
    if table.all(answer, lambda value: isinstance(value, Mapping) and "value" in value):
        return fields | {"target": "{{ " + name + ".value }}", **_SHORT_TEXT}
    if table.all(answer, is_texts):
        return fields | {"target": "{{ " + name + "[0] }}", **_SHORT_TEXT}
    if table.all(answer, lambda value: isinstance(value, str) and "####" in value):
        last = "{{ " + name + ".split('####')[-1].strip() }}"
        return fields | {"target": last, **_NUMBER}
    if table.all(answer, lambda value: isinstance(value, str) and "\\boxed" in value):
        return fields | {"target": "{{ " + name + " | boxed }}", **_BOXED}
    if table.find(["problem"]) and table.find(["solution"], answer):
        return fields | _BOXED
    if table.all(answer, is_number):
        return fields | _NUMBER
    if not table.all(answer, lambda value: isinstance(value, str)):
        return {}
    words = sorted(len(value.split()) for value in table.values(answer))
    return fields | (_SHORT_TEXT if words[len(words) // 2] <= _SHORT else _LONG_TEXT)


_NUMBER: Fields = {"extract": "final_answer", "metric": "numeric", "max_new_tokens": 320}
_BOXED: Fields = {"extract": "boxed", "metric": "math", "max_new_tokens": 1024}
_SHORT_TEXT: Fields = {"extract": "first_line", "metric": "f1", "max_new_tokens": 32}
_LONG_TEXT: Fields = {"metric": "rougeL", "max_new_tokens": 256}


def _conversation(table: Table, given: Mapping[str, str]) -> Fields | None:
    column = table.find(("messages", "conversations", "conversation", "dialog"))
    if given or column is None or (table.find(["problem"]) and table.find(["solution"])):
        return None
    for role, content, asker, answerer in (
        ("role", "content", "user", "assistant"),
        ("from", "value", "human", "gpt"),
    ):
        if all(is_structs(value, role, content) for value in table.values(column)):
            by = f"{ref(column)} | selectattr('{role}', 'equalto', "
            asked, answered = (
                "{{ (" + f"{by}'{who}') | first)['{content}']" + " }}" for who in (asker, answerer)
            )
            fields = {"kind": "generation", "prompt": asked, "target": answered, "chat": "auto"}
            return fields | _LONG_TEXT
    return None


def _translation(table: Table, given: Mapping[str, str]) -> Fields | None:
    column = table.find(["translation"])
    if given or column is None or not table.all(column, lambda value: isinstance(value, Mapping)):
        return None
    languages = list(table.values(column)[0])
    if len(languages) < 2:
        return None
    source, into = languages[:2]
    one, other = ("{{ " + f"{ref(column)}['{language}']" + " }}" for language in (source, into))
    return {
        "kind": "generation",
        "prompt": f"Text ({source}): {one}\nText ({into}):",
        "target": other,
        "language": into,
        "extract": "first_line",
        "metric": "chrf",
        "chat": "auto",
    }


def _text(table: Table, given: Mapping[str, str]) -> Fields | None:
    """Text alone, to be predicted. With labels nothing can be made of it would be the wrong use."""
    text = given.get("target") or table.find(TEXT)
    if text is None or not table.all(text, lambda value: isinstance(value, str)):
        return None
    if "target" not in given and table.find((*LABEL, *ANSWER, "code", "testlist"), text):
        return None
    asked = show(given["prompt"]) if "prompt" in given else ""
    return {"kind": "perplexity", "prompt": asked, "target": show(text)}
