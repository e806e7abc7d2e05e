"""The number that a text gives as its answer."""

from __future__ import annotations

import re
from collections.abc import Sequence

from morphing.benchmarks.judging.multipliers import KANJI, east_asian
from morphing.benchmarks.judging.numbers import Number, normalise, numbers, plain

_TAG = re.compile(r"<answer>(?P<inside>[^<]*)(?:</answer>|$)", re.IGNORECASE)
_BOX = re.compile(r"\\(?:boxed|fbox)(?:\s*(?P<brace>\{)|\s+)")
# "#### 18" as GSM8K writes it, and no heading such as "#### 1. First step".
_HASHES = re.compile(r"####[ \t]*(?P<rest>[^\n]*)")
_HEADING = re.compile(r"\d+[.):][ \t]+\S|[^\W\d_]")

# What announces an answer, in the catalogue's languages and a few more: with a verb, or a colon.
_SAID = (
    r"answer(?:[ ](?!is\b|are\b)[\w'’]+){0,8}?[ ](?:is|are|was|would be|will be)\b"
    r"|(?:antwort|lösung|ergebnis)(?:[ ](?!ist\b|lautet\b|beträgt\b)[\wäöüß]+){0,8}?"
    r"[ ](?:ist|lautet|beträgt|wäre)\b"
    r"|(?:respuesta|solución|resultado)(?:[ ](?!es\b)\w+){0,8}?[ ](?:es|sería|son)\b"
    r"|(?:réponse|solution|résultat)(?:[ ](?!est\b)[\w'’]+){0,8}?[ ](?:est|serait|sont)\b"
    r"|resposta(?:[ ](?!é\b)\w+){0,8}?[ ]é\b|risposta(?:[ ](?!è\b)\w+){0,8}?[ ]è\b"
    r"|jibu(?:[ ](?!ni\b)\w+){0,8}?[ ]ni\b"
    r"|(?:答え|解答|回答|正解)は|答案(?:就|应该|應該)?[是为為]|答案等[于於]|答[是为為]"
    r"|คำตอบ(?:สุดท้าย)?(?:คือ|เป็น)"
    r"|ответ(?:[ ](?!будет\b|равен\b)[^\W\d_]+){0,3}?[ ](?:равен|будет|составляет|равняется)\b"
    r"|উত্তর(?:টি)?[ ]?(?:হল|হলো|হচ্ছে|হবে)|(?:సమాధానం|జవాబు)(?:[ ]ఏమిటంటే)?(?=[ ])|उत्तर[ ]है"
    r"|(?:정답|답)[은는이]"
)
_COLON = (
    r"(?:answer|antwort|lösung|ergebnis|respuesta|solución|réponse|resposta|risposta|ответ|jibu"
    r"|答え?|解答|回答|正解|答案|คำตอบ|ตอบ|উত্তর|సమాధానం|జవాబు|उत्तर|정답|답)"
    r"(?:[ ]final[e]?)?[*_ ]*[:=—–-]"
)
_ANNOUNCED = re.compile(rf"(?<![^\W\d_])(?:(?P<said>{_SAID})|(?P<colon>{_COLON}))", re.IGNORECASE)
# Without spaces between words something stands before an announcement.
_ANNOUNCED_ASIAN = re.compile(
    r"(?P<said>(?:答え|解答|回答|正解)は|答案(?:就|应该|應該)?[是为為]|答案等[于於]|คำตอบ(?:สุดท้าย)?(?:คือ|เป็น))"
)
_REACH = 1000  # characters after an announcement in which an answer is looked for
_PLACES = 20  # last announcements that are looked at
_SENTENCE_END = re.compile(r"(?<=[^\d\s])[.](?=\s|$)|(?<=\d)[.](?=\s+[^\W\d_a-z]|\s*$)|[。!?！？।]")
_ASIDE = re.compile(
    r"^[*_\s]*(?:let me know|feel free|i hope|hope (?:this|that)|if you|please|would you|do you"
    r"|is there|confidence|note|lass|lassen|falls|wenn sie|ich hoffe|avísame|déjame|si tiene|espero"
    r"|no dudes"
    r"|n'hésite|si vous|j'espère|если|дайте|надеюсь|ご質問|何か|他に|もし|如果|如有|希望|还有"
    r"|หาก|ถ้า|তোমার যদি|যদি|మీకు|kama|tafadhali)",
    re.IGNORECASE,
)


def last_number(text: str, language: str | None = None) -> str:
    """The last number in ``text`` in its plainest form ("1,234.50" is "1234.5"); empty if none.

    Operands are passed over for the last result ("130 - 80 = 50, from 130 - 80" is 50), and what
    is part of a date, a time or a name for any other number. A numeral in Chinese characters counts
    where there are no digits.
    """
    text = normalise(text)
    return _chosen(text, numbers(text, language))


def final_answer(text: str, language: str | None = None) -> str:
    r"""The number that ``text`` gives as its answer, in plainest form; empty if there is none.

    The first of these that is there, of several the last: ``#### 18``, ``\boxed{18}``,
    ``<answer>18</answer>``, what is announced as the answer ("the answer is 18", 答えは18), the
    last number that is in no closing words ("Let me know if you have 2 questions").
    """
    text = normalise(text)
    for found in (_after_hashes, _in_box, _in_tag, _announced):
        if answer := found(text, language):
            return answer
    kept = _without_asides(text)
    return _chosen(kept, numbers(kept, language)) or _chosen(text, numbers(text, language))


def last_boxed(text: str) -> str:
    r"""What the last ``\boxed{...}`` in ``text`` holds, braces inside it too; empty if none.

    ``\fbox`` counts, and ``\boxed 7`` without braces holds what comes up to a space or a dollar. A
    box that is never closed, of a text that was cut short, counts as none.
    """
    boxes = list(_BOX.finditer(text))
    if not boxes:
        return ""
    found = boxes[-1]
    rest = text[found.end() :]
    if not found["brace"]:
        return re.split(r"[\s$]", rest, maxsplit=1)[0].rstrip(".")
    depth = 1
    for at, character in enumerate(rest):
        escaped = at > 0 and rest[at - 1] == "\\"
        depth += {"{": 1, "}": -1}.get(character, 0) * (not escaped)
        if depth == 0:
            return rest[:at].strip()
    return ""


def _chosen(text: str, found: Sequence[Number]) -> str:
    sure = [number for number in found if not number.doubtful] or found
    if not sure:
        values = [value for word in KANJI.findall(text) if (value := east_asian(word)) is not None]
        return plain(values[-1]) if values else ""
    last = sure[-1]
    if last.operand:
        before = _before_brackets(text, last.start)
        last = next((number for number in reversed(sure) if number.result), None) or next(
            (number for number in reversed(sure) if number.end <= before), last
        )
    return plain(last.value)


def _before_brackets(text: str, at: int) -> int:
    """Where the brackets around ``at`` begin ("5 days (2 days + 3 days)"); 0 without any."""
    begin = max(text.rfind("(", 0, at), text.rfind("（", 0, at))
    return begin if begin > 0 and not re.search(r"[)）\n]", text[begin:at]) else 0


def _after_hashes(text: str, language: str | None) -> str:
    for found in reversed(list(_HASHES.finditer(text))):
        rest = found["rest"].strip(" *_`")
        if rest and not _HEADING.match(rest):
            return _chosen(rest, numbers(rest, language)[:1])
    return ""


def _in_box(text: str, language: str | None) -> str:
    return last_number(last_boxed(text), language)


def _in_tag(text: str, language: str | None) -> str:
    tags = [found["inside"] for found in _TAG.finditer(text)]
    return last_number(tags[-1], language) if tags else ""


def _announced(text: str, language: str | None) -> str:
    places = [*_ANNOUNCED.finditer(text), *_ANNOUNCED_ASIAN.finditer(text)]
    for found in sorted(places, key=lambda place: place.start(), reverse=True)[:_PLACES]:
        said = found["said"] is not None
        for line in _next_lines(text, found.end()):
            if said and (end := _SENTENCE_END.search(line)):
                line = line[: end.start()]
            given = numbers(line, language)
            if not given:
                value = _chosen(line, given)
            elif said and not any(number.result for number in given) and not _is_sum(given):
                value = _chosen(line, given[:1])
            else:
                value = _chosen(line, [n for n in given if n.result] or given)
            if value:
                return value
    return ""


def _is_sum(given: Sequence[Number]) -> bool:
    return any(number.operand for number in given[1:2])


def _next_lines(text: str, start: int) -> list[str]:
    """What stands after ``start`` on its line; the next line with words where there is nothing."""
    lines = text[start : start + _REACH].split("\n")
    return [each for each in lines if re.search(r"\w", each)][:1]


def _without_asides(text: str) -> str:
    """``text`` without closing words and questions."""
    sentences = re.split(r"(?<=[.!?。！？।])\s+|\n+", text)
    kept = [
        each for each in sentences if not _ASIDE.match(each) and not re.search(r"[?？]\W*$", each)
    ]
    return "\n".join(kept)
