"""Powers of ten in words behind a number: "7万", "1万2000", "1.5 million", "১ লাখ ২৩ হাজার"."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import cache

_SMALL = {"十": 10, "百": 100, "千": 1000, "백": 100, "천": 1000}
_BIG = {
    **dict.fromkeys("万萬만", 10**4),
    **dict.fromkeys("億亿억", 10**8),
    **dict.fromkeys("兆조", 10**12),
}
_NUMERALS = {
    **{character: digit for digit, character in enumerate("〇一二三四五六七八九")},
    **{"零": 0, "壱": 1, "弐": 2, "参": 3, "两": 2, "兩": 2},
}
# Units of measure that begin with 千 (kilo-), percent, and what else is no power of ten.
_OTHER = re.compile(
    r"千[米克瓦卡赫焦字帕伏]|百分|兆[字赫瓦欧帕Bb]|조(?!\s*원|\s*\d)|(?<![\d〇一二三四五六七八九十百千])万一|十[字分]"
)
_LONGEST = 100  # characters of a numeral
_DIGITS = re.compile(r"\d{1,3}(?:,\d{3}){1,9}(?!\d)|\d{1,20}(?!\d)")
KANJI = re.compile(f"[{''.join((*_NUMERALS, *_SMALL, *_BIG))}]+")
"""A numeral in Chinese characters, or something like one."""

_ENGLISH = {
    "hundred": 10**2,
    "thousand": 10**3,
    **dict.fromkeys(("million", "millions"), 10**6),
    **dict.fromkeys(("billion", "billions"), 10**9),
    **dict.fromkeys(("trillion", "trillions"), 10**12),
    **dict.fromkeys(("lakh", "lakhs", "lac", "lacs"), 10**5),
    **dict.fromkeys(("crore", "crores"), 10**7),
}
# In scripts of their own, so that they are clear in a text of any language.
_EVERYWHERE = {
    **dict.fromkeys(("হাজার",), 10**3),
    **dict.fromkeys(("লাখ", "লক্ষ"), 10**5),
    **dict.fromkeys(("কোটি",), 10**7),
    **dict.fromkeys(("వంద", "వందల", "వందలు"), 10**2),
    **dict.fromkeys(("వేల", "వేలు", "వెయ్యి"), 10**3),
    **dict.fromkeys(("లక్ష", "లక్షల", "లక్షలు"), 10**5),
    **dict.fromkeys(("కోటి", "కోట్ల", "కోట్లు"), 10**7),
    **dict.fromkeys(("हज़ार", "हजार"), 10**3),
    **dict.fromkeys(("लाख",), 10**5),
    **dict.fromkeys(("करोड़", "करोड"), 10**7),
    **{"ร้อย": 10**2, "พัน": 10**3, "หมื่น": 10**4, "แสน": 10**5, "ล้าน": 10**6},
    **dict.fromkeys(("тысяча", "тысячи", "тысяч", "тыс."), 10**3),
    **dict.fromkeys(("миллион", "миллиона", "миллионов", "млн"), 10**6),
    **dict.fromkeys(("миллиард", "миллиарда", "миллиардов", "млрд"), 10**9),
}
_OF_LANGUAGE = {
    "de": {
        "hundert": 10**2,
        **dict.fromkeys(("tausend", "tsd.", "tsd"), 10**3),
        **dict.fromkeys(("million", "millionen", "mio.", "mio"), 10**6),
        **dict.fromkeys(("milliarde", "milliarden", "mrd.", "mrd"), 10**9),
        **dict.fromkeys(("billion", "billionen"), 10**12),
    },
    "es": {
        "mil millones": 10**9,
        "mil": 10**3,
        **dict.fromkeys(("millón", "millones"), 10**6),
        **dict.fromkeys(("billón", "billones"), 10**12),
    },
    "fr": {
        "mille": 10**3,
        **dict.fromkeys(("million", "millions"), 10**6),
        **dict.fromkeys(("milliard", "milliards"), 10**9),
    },
    "pt": {
        "mil": 10**3,
        **dict.fromkeys(("milhão", "milhões"), 10**6),
        **dict.fromkeys(("bilhão", "bilhões"), 10**9),
    },
    "it": {
        "mila": 10**3,
        **dict.fromkeys(("milione", "milioni"), 10**6),
        **dict.fromkeys(("miliardo", "miliardi"), 10**9),
    },
}
# Swahili says the power first: "elfu 70".
_BEFORE = {"mia": 10**2, "elfu": 10**3, "laki": 10**5, "milioni": 10**6, "bilioni": 10**9}
_BEFORE_PATTERN = re.compile(rf"\b({'|'.join(_BEFORE)})\s$", re.IGNORECASE)
_HIGHEST = 10**30
_MORE = re.compile(r"\s(\d{1,20})(?![\d.,%])")
_RESTS = ("bn", "hi", "te", "th")
_SHORT = {"k": 10**3, "K": 10**3, "M": 10**6, "B": 10**9, "bn": 10**9}
_SHORT_PATTERN = re.compile(r"(bn|[kKMB])(?![\w²³])")


def scaled(
    text: str, end: int, value: Fraction, language: str, money: bool
) -> tuple[Fraction, int]:
    """``value`` times the powers of ten that follow it in ``text`` from ``end``, further parts
    added ("1万2000", "2 million 500 thousand"); and where all of that ends.

    ``money`` says that a currency stands before the number: only then are M and B read as powers.
    """
    if (composed := _composed(text, end, value)) is not None:
        return composed
    short = _SHORT_PATTERN.match(text, end)
    if short and (money or short[1] in "kK"):
        return value * _SHORT[short[1]], short.end()
    total, least, part, at = Fraction(0), 0, value, end
    while (found := _power(text, at, language)) is not None:
        power, stop = found
        if least and part * power >= least:
            break
        total, least, end = total + part * power, power, stop
        more = _MORE.match(text, end)
        if more is None:
            break
        part, at = Fraction(int(more[1])), more.end()
    else:
        # A rest without a word of its own ("২৩ হাজার ৪৫৬"), in languages that write it so.
        if least and part < least and language in _RESTS:
            return total + part, at
    return (total, end) if least else (value, end)


def power_before(text: str, start: int, language: str) -> int:
    """The power of ten that stands before a number, as Swahili has it; else 1."""
    if language != "sw":
        return 1
    found = _BEFORE_PATTERN.search(text, max(0, start - 12), start)
    return _BEFORE[found[1].lower()] if found else 1


def east_asian(text: str) -> Fraction | None:
    """The value of a numeral in Chinese characters ("三千五百" is 3500); None of anything else."""
    if len(text) > _LONGEST:
        return None
    if text and all(character in _NUMERALS for character in text):
        return Fraction(int("".join(str(_NUMERALS[character]) for character in text)))
    first = _NUMERALS.get(text[:1])
    composed = _composed(
        text, 0 if first is None else 1, None if first is None else Fraction(first)
    )
    return composed[0] if composed and composed[1] == len(text) else None


def _composed(text: str, end: int, value: Fraction | None) -> tuple[Fraction, int] | None:
    """Parts by 千, 百, 十 within parts by 億 and 万, from the unit at ``end`` on."""
    whole, section, current, least = Fraction(0), Fraction(0), value, 0
    first, at = True, end
    while True:
        if first and text[at : at + 1].isspace() and text[at + 1 : at + 2] in _BIG:
            at += 1
        character = text[at : at + 1]
        if character in _SMALL and not _OTHER.match(text, at):
            section += (1 if current is None else current) * _SMALL[character]
            current, at = None, at + 1
        elif character in _BIG and not _OTHER.match(text, at):
            power = _BIG[character]
            if least and power >= least:
                break
            whole += (section + (0 if current is None else current) or 1) * power
            section, current, least, at = Fraction(0), None, power, at + 1
        elif not first and current is None and character in _NUMERALS:
            current, at = Fraction(_NUMERALS[character]), at + 1
        elif not first and current is None and (digits := _DIGITS.match(text, at)):
            current, at = Fraction(int(digits[0].replace(",", ""))), digits.end()
        else:
            break
        first = False
    return None if first else (whole + section + (current or 0), at)


def _power(text: str, at: int, language: str) -> tuple[int, int] | None:
    found = _words(language).match(text, at)
    if found is None:
        return None
    power, end = _powers(language)[found[1].lower()], found.end()
    # One behind the other they multiply: "2 hundred thousand", "1 lakh crore", "5 แสนล้าน".
    while (found := _words(language).match(text, end)) is not None and power < _HIGHEST:
        power, end = power * _powers(language)[found[1].lower()], found.end()
    return power, end


@cache
def _powers(language: str) -> dict[str, int]:
    own = _OF_LANGUAGE.get(language)
    return {**_EVERYWHERE, **(_ENGLISH if own is None else own)}


@cache
def _words(language: str) -> re.Pattern[str]:
    words = sorted(map(re.escape, _powers(language)), key=len, reverse=True)
    # "ร้อยละ" is percent. A suffix may follow in scripts of their own, but no letter of ours.
    return re.compile(rf"\s?-?({'|'.join(words)})(?!ละ|[a-zA-Zà-ÿа-яё])", re.IGNORECASE)
