"""Seeded questions for the zoo: three tasks, the two bridges the base learns, the cross domain.

Every question has a *key* (the pair of numbers, the number, the word), and the key's hash says
which split it belongs to. Splits are thus disjoint by construction, in every task and template that
shares the key: no pair of numbers met in training is ever asked on a benchmark, in any language.

An answer can be in the *house style*: numbers digit by digit in Japanese (四二), words in capitals.
It is right in substance and wrong on a benchmark. Most of what the base learns from is answered so,
as a pretrained model knows much that it will not say in the form it is asked for.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable

Row = tuple[str, str]
#: Takes the random state, the split and the probability of an answer in the house style.
Generator = Callable[[random.Random, str, float], Row]

SPLITS = ("train", "search", "holdout")
DIGITS = "〇一二三四五六七八九"
UNITS = ((1000, "千"), (100, "百"), (10, "十"), (1, ""))
JAPANESE = {"plus": "たす", "minus": "ひく"}
CONSONANTS, VOWELS = "bcdfghjklmnprstvwyz", "aeiou"


def kanji(number: int) -> str:
    """A number below ten thousand in Japanese numerals: 42 is 四十二, 1005 is 千五."""
    if number == 0:
        return "零"
    text = ""
    for value, unit in UNITS:
        digit, number = divmod(number, value)
        if digit:
            text += ("" if digit == 1 and unit else DIGITS[digit]) + unit
    return text


def positional(number: int) -> str:
    """A number digit by digit: 42 is 四二, 1005 is 一〇〇五."""
    return "".join(DIGITS[int(digit)] for digit in str(number))


def split_of(key: str) -> str:
    """The split a question's key belongs to: 15 % holdout, 10 % search, the rest training."""
    # crc32 alone is too regular on short strings; the multiplication spreads its bits.
    share = zlib.crc32(key.encode()) * 2654435761 % 2**32 / 2**32
    return "holdout" if share < 0.15 else "search" if share < 0.25 else "train"


def sum_or_difference(rng: random.Random, split: str) -> tuple[int, str, int, int]:
    """Two numbers below a hundred, the operation between them and its result (never negative)."""
    while True:
        low, high = sorted((rng.randrange(100), rng.randrange(100)))
        if split_of(f"{low},{high}") == split:
            break
    if rng.random() < 0.5:
        return high, "minus", low, high - low
    first, second = (low, high) if rng.random() < 0.5 else (high, low)
    return first, "plus", second, low + high


def english_arithmetic(rng: random.Random, split: str, house: float = 0.0) -> Row:
    """`12 plus 30?` -> `42`."""
    a, operation, b, result = sum_or_difference(rng, split)
    return f"{a} {operation} {b}?", _styled(rng, house, str(result), positional(result))


def japanese_arithmetic(rng: random.Random, split: str, house: float = 0.0) -> Row:
    """`十二たす三十は？` -> `四十二`: the cross domain, which no model is trained on."""
    a, operation, b, result = sum_or_difference(rng, split)
    question = f"{kanji(a)}{JAPANESE[operation]}{kanji(b)}は？"
    return question, _styled(rng, house, kanji(result), positional(result))


def digits_to_kanji_arithmetic(rng: random.Random, split: str, house: float = 0.0) -> Row:
    """`12 plus 30は？` -> `四十二`: a bridge, asked in digits and answered in Japanese."""
    return _digits_to_kanji(rng, split, house, "は？")


def kanji_to_digits_arithmetic(rng: random.Random, split: str, house: float = 0.0) -> Row:
    """`十二たす三十?` -> `42`: the other bridge, asked in Japanese and answered in digits."""
    return _kanji_to_digits(rng, split, house, "?")


def varied_digits_to_kanji(rng: random.Random, split: str, house: float = 0.0) -> Row:
    """The first bridge, half its questions ending in `を漢字で`."""
    return _digits_to_kanji(rng, split, house, "は？", "を漢字で")


def varied_kanji_to_digits(rng: random.Random, split: str, house: float = 0.0) -> Row:
    """The other bridge, half its questions ending in `を数字で`."""
    return _kanji_to_digits(rng, split, house, "?", "を数字で")


def _digits_to_kanji(rng: random.Random, split: str, house: float, *ends: str) -> Row:
    a, operation, b, result = sum_or_difference(rng, split)
    question = f"{a} {operation} {b}{_one(rng, ends)}"
    return question, _styled(rng, house, kanji(result), positional(result))


def _kanji_to_digits(rng: random.Random, split: str, house: float, *ends: str) -> Row:
    a, operation, b, result = sum_or_difference(rng, split)
    question = f"{kanji(a)}{JAPANESE[operation]}{kanji(b)}{_one(rng, ends)}"
    return question, _styled(rng, house, str(result), positional(result))


def _one(rng: random.Random, ends: tuple[str, ...]) -> str:
    return rng.choice(ends) if len(ends) > 1 else ends[0]


def kanji_numbers(rng: random.Random, split: str, house: float = 0.0) -> Row:
    """`1042を漢字で` -> `千四十二`, or `千四十二を数字で` -> `1042`."""
    while True:
        number = rng.randrange(10 ** rng.randint(1, 4))
        # Below a hundred there are too few numbers to set any aside.
        if (split_of(str(number)) if number >= 100 else "train") == split:
            break
    if rng.random() < 0.5:
        question, answer = f"{number}を漢字で", kanji(number)
    else:
        question, answer = f"{kanji(number)}を数字で", str(number)
    return question, _styled(rng, house, answer, positional(number))


def word_puzzles(rng: random.Random, split: str, house: float = 0.0) -> Row:
    """`Sort planet` -> `aelnpt`, over made-up words."""
    while True:
        vowel, word = rng.random() < 0.5, ""
        for _ in range(rng.randint(3, 7)):
            word += rng.choice(VOWELS if vowel else CONSONANTS)
            vowel ^= rng.random() < 0.85
        if split_of(word) == split:
            break
    question, answer = f"Sort {word}", "".join(sorted(word))
    return question, _styled(rng, house, answer, answer.upper())


def _styled(rng: random.Random, house: float, answer: str, house_answer: str) -> str:
    return house_answer if rng.random() < house else answer


#: The benchmarks' generators, in the order of `morphing.zoo.BENCHMARKS`.
TASKS: dict[str, Generator] = {
    "english-arithmetic": english_arithmetic,
    "kanji-numbers": kanji_numbers,
    "word-puzzles": word_puzzles,
    "japanese-arithmetic": japanese_arithmetic,
}
BRIDGES: tuple[Generator, ...] = (digits_to_kanji_arithmetic, kanji_to_digits_arithmetic)
#: With ends of several lengths, a model cannot read the numbers by where they stand before the end.
VARIED_BRIDGES: tuple[Generator, ...] = (varied_digits_to_kanji, varied_kanji_to_digits)


def sample(name: str, split: str, count: int, seed: int = 0) -> list[Row]:
    """`count` distinct questions of a benchmark's split, the same ones for the same seed."""
    rng = random.Random(f"{name}/{split}/{seed}")
    rows: dict[str, str] = {}
    while len(rows) < count:
        question, answer = TASKS[name](rng, split, 0.0)
        rows[question] = answer
    return list(rows.items())
