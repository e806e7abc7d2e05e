"""Numbers in texts, in every language's way of writing them."""

from __future__ import annotations

import sys
import unicodedata
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morphing.benchmarks.benchmark import catalogue
from morphing.benchmarks.judging.answers import final_answer, last_number
from morphing.benchmarks.judging.metrics import get_metric
from morphing.benchmarks.judging.numbers import plain, read_number

NATIVE = {"bn": "০", "te": "౦", "th": "๐", "hi": "०", "ar": "٠", "fa": "۰", "my": "၀"}
GROUPS = {
    "en": (",", "\u202f", "'", "’", "{,}", r"\,"),
    "bn": (",", "\u00a0"),
    "te": (",", "\u202f"),
    "th": (",",),
    "hi": (",",),
    "ja": (",", "，"),
    "zh": (",", "，"),
    "sw": (",",),
    "de": (".", "\u202f", "\u00a0", "'"),
    "es": (".", "\u202f"),
    "fr": ("\u202f", "\u00a0", " ", "\u2009"),
    "ru": ("\u00a0", " ", "\u202f"),
    "ar": ("٬", ","),
    "pt": (".",),
    "pl": (" ", "."),
}
COMMA = {"de", "es", "fr", "ru", "pt", "pl"}
AROUND = {
    "en": "In all that is {} dollars.",
    "ja": "合計は{}円です。",
    "zh": "一共是{}元。",
    "th": "รวม {} บาท",
    "bn": "মোট {} টাকা।",
    "te": "మొత్తం {} రూపాయలు.",
    "ru": "Всего {} рублей.",
    "de": "Das sind {} Euro.",
    "fr": "Cela fait {} €.",
}


def grouped(value: int, by: str) -> str:
    return f"{value:,}".replace(",", by)


def indian(value: int) -> str:
    head, tail = divmod(value, 1000)
    parts = [f"{tail:03d}"]
    while head:
        head, part = divmod(head, 100)
        parts.insert(0, f"{part:02d}" if head else str(part))
    return ",".join(parts)


def myriads(value: int) -> str:
    """As Japanese newspapers have it: 1億2345万6789."""
    parts = []
    for power, unit in ((10**8, "億"), (10**4, "万"), (1, "")):
        part, value = divmod(value, power)
        parts.append(f"{part}{unit}" if part else "")
    return "".join(parts)


def kanji(value: int) -> str:
    """Below 100,000,000, in Chinese characters."""
    digits = "〇一二三四五六七八九"

    def below(value: int) -> str:
        text = ""
        for power, unit in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
            digit, value = divmod(value, power)
            text += ("" if digit == 1 and unit else digits[digit]) + unit if digit else ""
        return text

    high, low = divmod(value, 10**4)
    return (f"{below(high)}万" if high else "") + below(low)


@settings(max_examples=150, deadline=None)
@given(
    value=st.integers(0, 10**12),
    cents=st.integers(0, 99),
    language=st.sampled_from(sorted(GROUPS)),
    data=st.data(),
)
def test_a_number_written_as_its_language_does_is_read_back(
    value: int, cents: int, language: str, data: st.DataObject
) -> None:
    text = grouped(value, data.draw(st.sampled_from(GROUPS[language])))
    expected = str(value)
    if cents and language != "ar":
        text += f"{',' if language in COMMA else '.'}{cents:02d}"
        expected = f"{value}.{cents:02d}".rstrip("0")
    if language in NATIVE and data.draw(st.booleans()):
        zero = ord(NATIVE[language])
        text = "".join(chr(zero + int(c)) if c.isascii() and c.isdigit() else c for c in text)
    if data.draw(st.booleans()):
        text, expected = f"-{text}" if value or cents else text, f"-{expected}"
    expected = "0" if expected == "-0" else expected
    sentence = AROUND.get(language, "= {}.").format(text)
    assert plain(read_number(text, language) or Fraction(0)) == expected
    assert last_number(sentence, language) == final_answer(sentence, language) == expected
    assert final_answer(f"7 + 3\nAnswer: {text}\n\nThat took 12 steps.", language) == expected


@settings(max_examples=150, deadline=None)
@given(value=st.integers(1, 10**8 - 1))
def test_powers_in_characters_and_indian_groups_are_read_back(value: int) -> None:
    for text in (myriads(value), kanji(value), indian(value), f"₹{indian(value)}"):
        assert last_number(f"答えは{text}円", "ja") == str(value), text
        assert last_number(f"= {text}") == str(value), text


def test_digits_of_every_script_are_digits() -> None:
    zeros = [
        code
        for code in range(sys.maxunicode + 1)
        if unicodedata.decimal(chr(code), None) == 0 and chr(code + 9).isdecimal()
    ]
    assert len(zeros) > 60
    for zero in zeros:
        text = "".join(chr(zero + digit) for digit in (7, 0)) + "," + chr(zero) * 3
        assert last_number(f"= {text}") == "70000", unicodedata.name(chr(zero))


@pytest.mark.parametrize(
    ("text", "language", "number"),
    [
        ("Total:\n\n- $18", "en", "18"),
        ("* -$18", "en", "-18"),
        ("- 7 apples\n- 8 pears", "en", "8"),
        ("Profit = $130,000 - $80,000", "en", "80000"),
        ("130 - 80 = 50, found from 130 - 80", "en", "50"),
        ("2 × 3", "en", "3"),
        ("3-5 days", "en", "5"),
        ("3–5", "en", "5"),
        ("The total – 18", "en", "18"),
        ("a loss of -$1,200", "en", "-1200"),
        ("a loss of $-1,200", "en", "-1200"),
        ("= - 5", "en", "-5"),
        ("it is –5 degrees", "en", "-5"),
        ("minus 5", "en", "-5"),
        ("10 minus 5", "en", "5"),
        ("マイナス5度", "ja", "-5"),
        (r"\boxed{1{,}450}", "en", "1450"),
        (r"\$70{,}000", "en", "70000"),
        (r"70\,000", "en", "70000"),
        ("70’000", "de", "70000"),
        ("৭০,০০০", "bn", "70000"),
        ("౭౦,౦౦౦", "te", "70000"),
        ("๗๐,๐๐๐", "th", "70000"),
        ("٧٠٬٠٠٠", "ar", "70000"),
        ("٣٫٥", "ar", "3.5"),
        ("₹1,23,456", "en", "123456"),
        ("Rs. 500", "en", "500"),
        ("R$ 1.234,56", "pt", "1234.56"),
        ("1.450,00", "en", "1450"),
        ("1.450,00", "de", "1450"),
        ("1,450.00", "de", "1450"),
        ("1.450", "de", "1450"),
        ("1.450", "en", "1.45"),
        ("12.345.678", "en", "12345678"),
        ("in 12 345", "en", "345"),
        ("12 345 roubles", "ru", "12345"),
        ("7万円", "ja", "70000"),
        ("1万2000円", "ja", "12000"),
        ("1万2,000円", "ja", "12000"),
        ("3千", "ja", "3000"),
        ("3千5百円", "ja", "3500"),
        ("2.5万元", "zh", "25000"),
        ("7 万元", "zh", "70000"),
        ("1億5千万円", "ja", "150000000"),
        ("5千米", "zh", "5"),
        ("3千克", "zh", "3"),
        ("7만 원", "ko", "70000"),
        ("十八", "zh", "18"),
        ("百万一", "zh", "1000001"),
        ("万一下雨，带18把伞", "zh", "18"),
        ("二〇二四", "zh", "2024"),
        ("5 thousand people", "en", "5000"),
        ("1.5 million", "en", "1500000"),
        ("2 million 500 thousand", "en", "2500000"),
        ("70k", "en", "70000"),
        ("$3.5M", "en", "3500000"),
        ("5M", "en", "5"),
        ("5 km", "en", "5"),
        ("2 lakh rupees", "en", "200000"),
        ("3 crore", "en", "30000000"),
        ("১ লাখ ২৩ হাজার ৪৫৬", "bn", "123456"),
        ("৭০ হাজার টাকা", "bn", "70000"),
        ("2 లక్షల", "te", "200000"),
        ("7 หมื่นบาท", "th", "70000"),
        ("ร้อยละ 50", "th", "50"),
        ("elfu 70", "sw", "70000"),
        ("2 mil", "es", "2000"),
        ("2 mil", "en", "2"),
        ("3 Millionen", "de", "3000000"),
        ("5 тысяч рублей", "ru", "5000"),
        ("5 млн", "ru", "5000000"),
        ("12.5%", "en", "12.5"),
        ("3 1/2 cups", "en", "3.5"),
        ("3½", "en", "3.5"),
        ("¾", "en", "0.75"),
        (r"\frac{3}{4}", "en", "0.75"),
        (r"3\frac12", "en", "3.5"),
        ("1/3", "en", "1/3"),
        ("48 / 2", "en", "24"),
        ("1/0", "en", "0"),
        ("1.5 × 10^6", "en", "1500000"),
        ("2e5", "en", "200000"),
        ("10⁶", "en", "1000000"),
        ("18 on 2024-05-01 at 5:30", "en", "18"),
        ("2024年5月1日に18個", "ja", "18"),
        ("18 with GPT-4 and H2O and x_1", "en", "18"),
        ("18 on the 2nd day", "en", "18"),
        ("18 m²", "en", "18"),
        # Clock times, written dates, ordinals, notes, addresses and items of a list.
        ("18 apples by 5 p.m.", "en", "18"),
        ("$18 a day (from 9 am to 5 pm)", "en", "18"),
        ("18 um 10.30 Uhr", "de", "18"),
        ("Es sind 18 am 3. Mai 2021", "de", "18"),
        ("18 (on May 3, 2021)", "en", "18"),
        ("18 on the 3rd of May 2021", "en", "18"),
        ("18 el 3 de mayo de 2021", "es", "18"),
        ("18 points le 1er mai, au 2e tour, à 10h30", "fr", "18"),
        ("18 рублей 3 мая 2021", "ru", "18"),
        ("18人、3時に", "ja", "18"),
        ("มี 18 คน เวลา 10.30 น.", "th", "18"),
        ("18 apples[1]", "en", "18"),
        ("It is 18 [2].", "en", "18"),
        ("18 (see https://example.com/123)", "en", "18"),
        ("18 in all:\n1. add\n2. multiply", "en", "18"),
        ("[18]", "en", "18"),
        ("5 pm", "en", "5"),
        # Spaces and lines that part thousands in any language, lists of numbers not.
        ("1 234 567", "en", "1234567"),
        ("1 000 000", "en", "1000000"),
        ("12 000", "en", "12000"),
        ("100 200 300", "en", "300"),
        ("1 2 3", "en", "3"),
        ("1_000_000", "en", "1000000"),
        # Fractions that say the lower number first.
        ("5分の3", "ja", "0.6"),
        ("四分之三", "zh", "0.75"),
        ("百分之五十", "zh", "50"),
        ("5분의 3", "ko", "0.6"),
        ("30分の休み", "ja", "30"),
        # A currency before a point, in scripts whose signs are no letters.
        ("రూ.500", "te", "500"),
        ("रु.500", "hi", "500"),
        ("$.50", "en", "0.5"),
        # Powers one behind the other.
        ("5 hundred", "en", "500"),
        ("2 hundred thousand", "en", "200000"),
        ("1 lakh crore", "en", "1000000000000"),
        ("5 แสนล้าน", "th", "500000000000"),
        ("৫ হাজার কোটি", "bn", "50000000000"),
        ("3 Tsd. €", "de", "3000"),
        ("2 Mio €", "de", "2000000"),
        ("5 వందలు", "te", "500"),
        ("mia 5", "sw", "500"),
        ("asilimia 25", "sw", "25"),
        # Operands in brackets say how, not what.
        ("一共需要5天(2天+3天)", "zh", "5"),
        ("It takes 5 days (2 days + 3 days)", "en", "5"),
        ("**18**", "en", "18"),
        ("9" * 5000, "en", ""),
        ("10^{99999}", "en", "10"),
        ("1e99999", "en", "1"),
    ],
)
def test_numbers_in_texts(text: str, language: str, number: str) -> None:
    assert last_number(text, language) == number


@pytest.mark.parametrize(
    ("text", "language", "number"),
    [
        ("It's 18.\nLet me know if you have 2 questions", "en", "18"),
        ("It is 7. Do you want 5 more?", "en", "7"),
        ("#### 18\nThat took 3 steps", "en", "18"),
        ("#### 1. First\n2 + 2 = 4\n#### 18 dollars\nDone in 3.", "en", "18"),
        ("#### 1. Compute\nso 5 apples", "en", "5"),
        (r"so \boxed{1{,}450} in 3 steps", "en", "1450"),
        (r"so \boxed{\frac{1}{2}}, then \boxed{7} of 9", "en", "7"),
        ("The answer is 18 because 2 questions were asked.", "en", "18"),
        ("The answer is 5 + 3 = 8.", "en", "8"),
        ("The answer is:\n\n**18**\n\nI used 3 steps", "en", "18"),
        ("**Final Answer:** 18\nHope that helps 2", "en", "18"),
        ("Answer: First, 3 apples cost $6, so 6*3 = 18.", "en", "18"),
        ("To answer this question we need 2 steps. 3 + 4 = 7.", "en", "7"),
        ("The answer to the question is 3 apples. 9", "en", "3"),
        ("The answer is 18.5. There", "en", "18.5"),
        ("答えは１，２３４円です。3回計算しました。", "ja", "1234"),
        ("したがって、答えは7万円です。2回", "ja", "70000"),
        ("答えは十八です", "ja", "18"),
        ("答案是：5千米，共2步", "zh", "5"),
        ("所以答案为 3.5 万元。共2步", "zh", "35000"),
        ("答：一共有18个苹果。\n还有2个问题吗？", "zh", "18"),
        ("คำตอบคือ ๗๐,๐๐๐ บาท\n3", "th", "70000"),
        ("উত্তর হল ৭০,০০০ টাকা। ২", "bn", "70000"),
        ("উত্তর: ৭০,০০০\n২", "bn", "70000"),
        ("సమాధానం: ౭౦,౦౦౦\n౨", "te", "70000"),
        ("Die Antwort ist 1.234,50 Euro. Danke 2", "de", "1234.5"),
        ("La respuesta es 1.234 dólares. 2", "es", "1234"),
        ("La réponse est 1 234 euros. En 2", "fr", "1234"),
        ("Ответ: 1 234 рубля\n2", "ru", "1234"),
        ("Jibu ni 70,000. Hatua 2", "sw", "70000"),
        ("Ответ равен 18. Шаг 3", "ru", "18"),
        ("Правильный ответ будет 18. Шаг 3", "ru", "18"),
        ("答案就是18。共3步", "zh", "18"),
        ("答案等于18。共3步", "zh", "18"),
        ("<answer>18</answer> after 3 steps", "en", "18"),
        ("The total is 18.\n\nConfidence: 95%", "en", "18"),
        ("no number", "en", ""),
        ("", "en", ""),
    ],
)
def test_final_answers(text: str, language: str, number: str) -> None:
    assert final_answer(text, language) == number


def test_a_text_of_nothing_but_times_is_read_in_a_moment() -> None:
    assert last_number("1:00 " * 20_000 + "7") == "7"


def test_the_catalogue_reads_numbers_by_one_rule() -> None:
    read = {
        (each.extract, each.metric)
        for each in catalogue().values()
        if each.name.startswith(("gsm8k", "mgsm"))
    }
    assert read == {("final_answer", "numeric")}


@pytest.mark.parametrize(
    ("answer", "target", "language", "score"),
    [
        ("1234.5", "1.234,5", "de", 1.0),
        ("1234", "1234.0", "de", 1.0),
        ("1.234", "1234", "es", 1.0),
        ("1.234", "1234", "en", 0.0),
        ("1/3", "1/3", None, 1.0),
        ("0.3333", "1/3", None, 0.0),
        ("৭০,০০০", "70000", "bn", 1.0),
        ("1e400", "1e400", None, 0.0),
        ("1 2", "12", None, 0.0),
        ("", "", None, 0.0),
    ],
)
def test_equal_numbers(answer: str, target: str, language: str | None, score: float) -> None:
    assert get_metric("numeric", language)(answer, target) == score


PIECES = (
    *"0123456789 .,-+*/=()[]{}$%^_#:;'\n万億千百十一三〇½²৳৭০౭౦๗๐٧٠٬٫’−–×€₹，．",
    *("\\frac", "\\boxed{", "answer is ", "答えは", "####", "thousand", "lakh", "e", "k", "M"),
    *("Rs.", "st", "年", "月", "日", "\\,", "minus ", "elfu "),
)


@settings(max_examples=150, deadline=None)
@given(
    pieces=st.lists(st.sampled_from(PIECES), max_size=30),
    language=st.sampled_from(["en", "de", "fr", "ja", "sw", "bn", None]),
)
def test_whatever_is_read_is_a_number(pieces: list[str], language: str | None) -> None:
    for read in (last_number, final_answer):
        found = read("".join(pieces), language)
        assert found == "" or plain(read_number(found) or Fraction(0)) == found


@pytest.mark.parametrize(
    "piece",
    ["1", "1,", "A1", "x_", "万", "一", "=1", "- ", "answer is\n", "#### ", " ", "\\boxed{", "?\n"],
)
def test_long_texts_end(piece: str) -> None:
    """What takes the square of a text's length takes minutes here."""
    text = piece * (30_000 // len(piece))
    assert len(last_number(text, "en")) + len(final_answer(text, "fr")) < 100
