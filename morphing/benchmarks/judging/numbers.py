"""Numbers in texts: of every script's digits, grouped and signed as the world's languages do.

Extraction, metrics and mathematical equality all read numbers by this.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

from morphing.benchmarks.judging.multipliers import east_asian, power_before, scaled

# Languages that write 1.234,5 where English writes 1,234.5.
_DECIMAL_COMMA = (
    {"be", "bg", "ca", "cs", "da", "de", "el", "es", "et", "eu", "fi", "fr", "gl", "hr", "hu", "id"}
    | {"is", "it", "kk", "lt", "lv", "nb", "nl", "nn", "no", "pl", "pt", "ro", "ru", "sk", "sl"}
    | {"sr", "sv", "tr", "uk", "uz", "vi"}
)  # fmt: skip
# Those that may part thousands by any space, not only by one that does not break.
_SPACED = (
    {"be", "bg", "cs", "et", "fi", "fr", "hu", "kk", "lt", "lv", "nb", "nn", "no", "pl", "ru"}
    | {"sk", "sv", "uk", "uz"}
)  # fmt: skip
_LONGEST = 1000  # digits; Python refuses to convert more than some thousands
_HIGHEST_POWER = 300

_THIN = "\u202f"  # stands for all spaces that do not break
_SIGNS = "$¢£¤¥֏؋৲৳૱௹฿៛₠-₿﷼￠￡￦"
_ASCII = str.maketrans(
    {
        **dict.fromkeys("−－﹣‐‑", "-"),
        **dict.fromkeys("\u00a0\u2007\u2008\u2009\u200a", _THIN),
        **dict.fromkeys("’ʼ′＇", "'"),
        **dict(zip("，．＋％＄￥：＝／（）＃", ",.+%$¥:=/()#", strict=True)),
        "٫": ".",
        "٬": "'",  # which parts thousands whatever a language's decimal sign is
        "⁄": "/",
        **dict.fromkeys("\u200b\u200e\u200f\u2060\ufeff"),
    }
)
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_LATEX: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"(?<=\d)\{,\}(?=\d)"), ","),
    (re.compile(r"(?<=\d)(?:\\[,;:! ]|~)(?=\d)"), _THIN),
    (re.compile(r"\\([$%#])"), r"\1"),
    (
        re.compile(r"(?<![\d_])(\d{1,3}(?:_\d{3})+)(?![\d_])"),
        lambda found: found[1].replace("_", ","),
    ),
)

# Fractions that say the lower number first: 5分の3, 四分之三, 5분의 3.
_NUMERAL = r"(?:\d{1,20}|[〇一二三四五六七八九十百两]{1,9})"
_OF = re.compile(rf"({_NUMERAL})\s?(?:分[の之]|분의)\s?({_NUMERAL})(?![\d.,%])")

_FRAC = (
    r"\\[dtc]?frac\s*(?:\{\s*(?P<over>-?\d{1,300})\s*\}\s*\{\s*(?P<under>\d{1,300})\s*\}"
    r"|(?P<over1>\d)\s*(?P<under1>\d))"
)
_VULGAR = "¼½¾⅐-⅞"
_MIXED = re.compile(
    rf"[ ]?(?:{_FRAC}|(?P<vulgar>[{_VULGAR}]))|[ ](?P<a>\d{{1,20}})/(?P<b>\d{{1,20}})(?![\d/])"
)
_DIVIDED = re.compile(r"\s?/\s?(\d+)(?![\d/]|[.,]\d)")
_TENS = re.compile(
    r"\s?(?:[×*x·]|\\times|\\cdot)\s?10\s?(?:\^|\*\*)\s?\{?\s?([-+]?\d{1,3})(?!\d)\s?\}?"
    r"|[eE]([-+]?\d{1,3})(?!\w)"
)
_POWER = re.compile(r"\^(?:\{\s*(\d{1,2})\s*\}|(\d{1,2})(?!\d))")

_MONEY = re.compile(
    rf"(?<![A-Za-z])(?:(?:US|CA|AU|NZ|HK|NT|R|S)?[{_SIGNS}]|Rs\.?|[KT]?[Ss]h\.?|USD|EUR|GBP|INR|RM)"
    rf"[ {_THIN}]?$"
)
_DASH = re.compile(r"([-–])( ?)$")
_OPERATOR = re.compile(r"([\w)\]}%])\s*(?:[*×÷/+]|\\times|\\cdot|\\div)\s*$")
_OPERAND_BEFORE = re.compile(rf"(?:[\d)\]}}%]|(?<![A-Za-z])[A-Za-z]|[{_SIGNS}]\s+)$")
_ALPHABETIC = re.compile("[A-Za-z\u00c0-\u058f]$")  # other scripts may join words to numbers
_COPULA = re.compile(r"(?<!\w)(?:is|are|was|be|equals|ist|sind|est|es|son|ni)$", re.IGNORECASE)
_MINUS = re.compile(
    r"(?P<word>(?<!\w)(?:negative|minus|moins|menos|минус)\s|マイナス|[负負])$", re.IGNORECASE
)
_BEFORE_RESULT = re.compile(r"[=≈]\s*$")
_OPERATOR_AFTER = re.compile(r"\s*(?:[-+*×÷/]|\\times|\\cdot|\\div)\s*[\d(\\$]")
_MONTH = (
    r"(?:january|february|march|april|may|june|july|august|september|october|november|december"
    r"|(?:jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec)\.?"
    r"|januar|februar|märz|mai|juni|juli|oktober|dezember"
    r"|enero|febrero|marzo|abril|mayo|junio|julio|agosto|sep?tiembre|octubre|noviembre|diciembre"
    r"|janvier|février|mars|avril|juin|juillet|août|septembre|octobre|novembre|décembre"
    r"|января|февраля|марта|апреля|мая|июня|июля|августа|сентября|октября|ноября|декабря"
    r"|januari|februari|machi|aprili|mei|agosti|septemba|oktoba|novemba|desemba"
    r"|มกราคม|กุมภาพันธ์|มีนาคม|เมษายน|พฤษภาคม|มิถุนายน|กรกฎาคม|สิงหาคม|กันยายน|ตุลาคม"
    r"|พฤศจิกายน|ธันวาคม)"
)
_DOUBTFUL = re.compile(
    r"(?<!\d)\d{4}-\d{1,2}-\d{1,2}(?!\d)"  # dates
    r"|(?<![\d/])\d{1,4}/\d{1,2}/\d{1,4}(?![\d/])|(?<![\d.])\d{1,2}\.\d{1,2}\.\d{4}(?!\d)"
    r"|\d{4}\s?年\s?\d{1,2}\s?月(?:\s?\d{1,2}\s?日)?"
    rf"|(?<![^\W\d_]){_MONTH}\s(?:\d{{1,2}}(?:st|nd|rd|th)?(?!\d)(?:,?\s\d{{4}}(?!\d))?"
    r"|(?:de\s)?\d{4}(?!\d))"
    rf"|(?<!\d)\d{{1,2}}(?:st|nd|rd|th|er|\.)?\s(?:de\s|of\s)?{_MONTH}(?![^\W\d_])"
    r"(?:,?\s(?:de\s)?\d{4}(?!\d))?"
    r"|(?<![\d:])\d{1,2}:\d{2}(?::\d{2})?(?![\d:])"  # times
    r"|(?<![\d.,$])(?:0?\d|1[0-2])(?:[.:]\d{2})?\s?(?:[ap]\.m\b\.?|[ap]m\b|o'clock\b)"
    r"|(?<![\d.,$])(?:[01]?\d|2[0-3])(?:[.:]\d{2})?\s?(?:uhr\b|น\.|時(?!間))"
    r"|(?<!\d)(?:[01]?\d|2[0-3])\s?h\s?[0-5]\d(?!\w)"
    r"|(?<![\d.,])\d{1,2}(?:\.\d{1,2}){2,}(?!\d)"  # versions
    r"|(?<![\d.,])\d+(?:st|nd|rd|th|er|ère|e|ème|-[йяео]|º|ª)\b"  # ordinals
    r"|https?://\S+|www\.\S+"
    r"|(?<=[\w.])\[\^?\d{1,3}\]|(?<=\d)\s\[\^?\d{1,3}\]"  # notes
    r"|(?m:^)[ \t]*\d{1,2}[.)][ \t]+(?=\*{0,2}[^\W\d_])"  # items of a list
    r"|(?<=[\w)}])_\{?\d+"  # subscripts
    r"|(?<![A-Za-z_])(?!Rs\d|[KT]?[Ss]h\d|USD|EUR|GBP|INR|RM\d)[A-Za-z][A-Za-z_]*-?\d+"  # H2O
    r"|\^\s*\{?\s*[-+]?\d+",  # exponents
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Number:
    """A number in a normalised text, from ``start`` to ``end``.

    ``operand``: it is added to another number, subtracted from it, or such, and so is no result.
    ``result``: it follows an equals sign and no operator follows it. ``doubtful``: it is part of a
    date, a time, a name, an ordinal or a power.
    """

    value: Fraction
    start: int
    end: int
    operand: bool = False
    result: bool = False
    doubtful: bool = False


def normalise(text: str) -> str:
    """``text`` with ASCII digits, signs and separators; its length may change."""
    if not text.isascii():
        text = re.sub(
            "[⁰¹²³⁴-⁹⁻]+", lambda found: "^{" + found[0].translate(_SUPERSCRIPTS) + "}", text
        )
        text = "".join(map(_ascii_digit, text.translate(_ASCII)))
        text = _OF.sub(_fraction, text)
    for pattern, replacement in _LATEX:
        text = pattern.sub(replacement, text)
    return text


def numbers(text: str, language: str | None = None) -> list[Number]:
    """The numbers in ``text``, which went through :func:`normalise`, in their order.

    ``language`` (BCP 47) says what separators and words for powers of ten mean: "1.234" is 1234 in
    Spanish and 1.234 in English; "1.234,50", "1,23,456" and "7万" are clear in all. A minus belongs
    to a number unless it stands between two operands, parts it from words or is a list's bullet.
    """
    style = (language or "").split("-")[0].lower()
    return list(_numbers(text, style))


def read_number(text: str, language: str | None = None) -> Fraction | None:
    """The number that the whole of ``text`` is, with a currency or a percent sign or without; else
    None.
    """
    text = re.sub(r"^-\s+", "-", normalise(text).strip().rstrip("."))
    found = numbers(text, language)
    if len(found) != 1:
        return None
    rest = text[: found[0].start] + text[found[0].end :]
    return found[0].value if re.fullmatch(rf"[-+–\s%{_SIGNS}{_THIN}]*", rest) else None


def plain(value: Fraction) -> str:
    """``value`` in plainest form: "1234.5", and "1/3" where decimals have no end."""
    rest, places = value.denominator, 0
    for factor in (2, 5):
        count = 0
        while rest % factor == 0:
            rest, count = rest // factor, count + 1
        places = max(places, count)
    if rest != 1:
        return f"{value.numerator}/{value.denominator}"
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    cut = len(digits) - places
    sign = "-" if value < 0 else ""
    return f"{sign}{digits[:cut]}.{digits[cut:]}" if places else f"{sign}{digits}"


def _ascii_digit(character: str) -> str:
    return str(unicodedata.decimal(character)) if character.isdecimal() else character


@cache
def _pattern(language: str) -> re.Pattern[str]:
    """What a number looks like, without its sign: `_value` reads the groups."""
    comma = language in _DECIMAL_COMMA
    decimal = ".," if comma else "."
    groups = (".," if comma else ",") + "'" + _THIN + (" " if language in _SPACED else "")
    return re.compile(
        rf"{_FRAC}|(?P<comma>[1-9]\d{{0,2}}(?:\.\d{{3}})+,\d+)"
        r"|(?P<point>[1-9]\d{0,2}(?:,\d{3})+\.\d+)"
        r"|(?P<indian>\d{1,2}(?:,\d{2})+,\d{3}(?:\.\d+)?)(?!\d)"
        r"|(?P<dots>[1-9]\d{0,2}(?:\.\d{3}){2,})(?!\d)"
        rf"|(?P<grouped>[1-9]\d{{0,2}}(?P<by>[{groups}])\d{{3}}(?:(?P=by)\d{{3}})*)"
        rf"(?P<rest>[{decimal}]\d+)?(?!\d)"
        r"|(?<![\d.,] )(?P<spaced>[1-9]\d?(?: \d{3}){2,}"
        r"|[1-9]\d{0,2}(?: \d{3})*(?: 0\d\d)(?: \d{3})*)"
        r"(?P<part>[.,]\d+)?(?![\d]| \d)"
        rf"|(?P<whole>\d+)(?P<decimals>[{decimal}]\d+)?"
        # Vowel signs of Indic scripts and Thai are no word characters to `re`: రూ.500, not 0.5.
        rf"|(?<![\w)\u0900-\u09f1\u0a00-\u0dff\u0e01-\u0e3a\u0e40-\u0eff])(?P<bare>\.\d+)|(?P<vulgar>[{_VULGAR}])"
    )


def _numbers(text: str, language: str) -> Iterator[Number]:
    pattern, at = _pattern(language), 0
    spans = (found.span() for found in _DOUBTFUL.finditer(text))
    begin, end = next(spans, (len(text), len(text)))
    while (found := pattern.search(text, at)) is not None:
        start, at = found.span()
        while end <= start < len(text):
            begin, end = next(spans, (len(text), len(text)))
        value = _value(found)
        if value is None:
            continue
        value, at = _continued(text, at, value, whole=found["whole"] is not None)
        left = text[max(0, start - 16) : start]
        money = _MONEY.search(left)
        value, at = scaled(text, at, value, language, money is not None)
        value *= power_before(text, start, language)
        if money is not None:
            left = left[: money.start()]
        negative, operand = _sign(left, whole_line=start <= 16)
        yield Number(
            -value if negative else value,
            start,
            at,
            operand,
            bool(_BEFORE_RESULT.search(left.removesuffix("-")))
            and not _OPERATOR_AFTER.match(text, at),
            begin <= start < end,
        )


def _value(found: re.Match[str]) -> Fraction | None:
    if len(found[0]) > _LONGEST:
        return None
    if (over := found["over"] or found["over1"]) is not None:
        under = int(found["under"] or found["under1"])
        return Fraction(int(over), under) if under else None
    if found["vulgar"] is not None:
        return _vulgar(found["vulgar"])
    if found["comma"] is not None:
        return Fraction(found["comma"].replace(".", "").replace(",", "."))
    for name in ("point", "indian"):
        if found[name] is not None:
            return Fraction(found[name].replace(",", ""))
    if found["bare"] is not None:
        return Fraction("0" + found["bare"])
    whole = re.sub(
        r"\D", "", found["dots"] or found["grouped"] or found["spaced"] or found["whole"]
    )
    decimals = (found["rest"] or found["part"] or found["decimals"] or ".0")[1:]
    return Fraction(f"{whole}.{decimals}")


def _fraction(found: re.Match[str]) -> str:
    under, over = (int(n) if n.isdecimal() else east_asian(n) for n in found.groups())
    if not under or over is None:
        return found[0]
    # "百分之五十" is 50 percent, as "50%" is.
    return str(over) if found[1] == "百" else f"{over}/{under}"


def _vulgar(character: str) -> Fraction:
    return Fraction(unicodedata.numeric(character)).limit_denominator(10)


def _continued(text: str, at: int, value: Fraction, whole: bool) -> tuple[Fraction, int]:
    """A mixed number, a quotient or a power of which ``value`` is the beginning, and its end."""
    if whole and (found := _MIXED.match(text, at)):
        over, under = (found[a] or found[b] or found[c] for a, b, c in _PARTS)
        if found["vulgar"] is not None:
            return value + _vulgar(found["vulgar"]), found.end()
        if int(under) > abs(int(over)):
            return value + Fraction(int(over), int(under)), found.end()
    if (found := _TENS.match(text, at)) and abs(
        power := int(found[1] or found[2])
    ) <= _HIGHEST_POWER:
        return value * Fraction(10) ** power, found.end()
    if whole and value <= 1000 and (found := _POWER.match(text, at)):
        return value ** int(found[1] or found[2]), found.end()
    if (found := _DIVIDED.match(text, at)) and len(found[1]) < _LONGEST and int(found[1]):
        return value / int(found[1]), found.end()
    return value, at


_PARTS = (("over", "over1", "a"), ("under", "under1", "b"))


def _sign(left: str, whole_line: bool) -> tuple[bool, bool]:
    """Whether a number is negative and whether it is an operand, by what is to the ``left`` of it
    and its currency; ``whole_line`` says that the text begins there.
    """
    if (word := _MINUS.search(left)) is not None:
        binary = _OPERAND_BEFORE.search(left[: word.start()].rstrip()) is not None
        return not binary, binary
    dash = _DASH.search(left)
    if dash is None:
        return False, _OPERATOR.search(left) is not None
    before, apart = left[: dash.start()], bool(dash[2])
    bare = before.rstrip(" \t" + _THIN)
    if (not bare and whole_line) or bare.endswith("\n"):
        return not apart, False  # with a space it is a bullet
    if _OPERAND_BEFORE.search(bare) or _OPERAND_BEFORE.search(before):
        return False, True
    if bare[-1:].isalnum():
        # A dash that parts words is no sign, but "a loss of -5" and "it is - 5" have one.
        joined = before == bare and _ALPHABETIC.search(bare) is not None  # GPT-4
        return not joined and (not apart or _COPULA.search(bare) is not None), False
    return True, False
