"""From a generated text to the answer in it."""

import re
from decimal import Decimal

RULES = ("strip", "first_line", "last_number", "boxed", "code")
REGEX = "regex:"

# Languages that write 1.234,5 where English writes 1,234.5.
_DECIMAL_COMMA = (
    {"ca", "cs", "da", "de", "el", "es", "fi", "fr", "hr", "hu", "id", "it", "nb", "nl", "pl"}
    | {"pt", "ro", "ru", "sv", "tr", "uk", "vi"}
)  # fmt: skip

_ASCII = str.maketrans("０１２３４５６７８９，．－＋−", "0123456789,.-+-")
_SPACES = "\u00a0\u2009\u202f"  # they group digits in several languages; a plain space doesn't
# A minus belongs to the number unless it stands between two operands; a currency may follow it.
_SIGN = r"(?:(?<![\w).])(?P<sign>-)[ ]?)?(?:[$€£¥][ ]?)?"


def _number_pattern(decimal: str, thousands: str) -> re.Pattern[str]:
    return re.compile(
        rf"{_SIGN}(?:"
        rf"(?P<grouped>[1-9]\d{{0,2}}(?:[{thousands}]\d{{3}})+)(?P<rest>[{decimal}]\d+)?(?![\d])"
        rf"|(?P<whole>\d+)(?P<fraction>[{decimal}]\d+)?"
        rf"|(?P<bare>(?<!\d)\.\d+))"
    )


_POINT = _number_pattern(r".", "," + _SPACES)
_COMMA = _number_pattern(r".,", ".," + _SPACES)

_BOX = re.compile(r"\\(?:boxed|fbox)(?:\s*(?P<brace>\{)|\s+)")
_FENCED = re.compile(r"^[ \t]*```[^\n`]*\n(?P<code>.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)


def check_rule(rule: str) -> None:
    """Raise ValueError where ``rule`` is no extraction rule."""
    if rule.startswith(REGEX):
        try:
            re.compile(rule.removeprefix(REGEX))
        except re.error as error:
            raise ValueError(f"extract has a malformed regular expression ({error})") from error
    elif rule not in RULES:
        raise ValueError(f"unknown extract {rule!r} (choose {', '.join(RULES)} or regex:<pattern>)")


def extract_answer(rule: str, text: str, language: str | None = None) -> str:
    """The answer that ``rule`` finds in ``text``; empty where there is none.

    ``language`` tells ``last_number`` how numbers are written.
    """
    if rule == "strip":
        return text.strip()
    if rule == "first_line":
        return text.strip().partition("\n")[0].rstrip()
    if rule == "last_number":
        return last_number(text, language)
    if rule == "boxed":
        return last_boxed(text)
    if rule == "code":
        return code_block(text)
    matches = list(re.finditer(rule.removeprefix(REGEX), text))
    if not matches:
        return ""
    groups = [group for group in matches[-1].groups() if group is not None]
    return (groups[0] if groups else matches[-1].group()).strip()


def last_number(text: str, language: str | None = None) -> str:
    """The last number in ``text`` in its plainest form ("1,234.50" is "1234.5"); empty if none.

    Full-width digits count as digits. Three digits after a separator are thousands, in languages
    with a decimal comma after a point as well ("1.234" is 1234 in Spanish, 1.234 in English).
    """
    comma = (language or "").split("-")[0].lower() in _DECIMAL_COMMA
    matches = list((_COMMA if comma else _POINT).finditer(text.translate(_ASCII)))
    if not matches:
        return ""
    found = matches[-1]
    whole = re.sub(r"\D", "", found["grouped"] or found["whole"] or "0")
    fraction = re.sub(r"\D", "", found["rest"] or found["fraction"] or found["bare"] or "")
    value = Decimal(f"{whole}.{fraction or 0}")
    if value == 0:
        return "0"
    plain = f"{value:f}".rstrip("0").rstrip(".")
    return f"-{plain}" if found["sign"] else plain


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


def code_block(text: str) -> str:
    """The first fenced block of ``text``, to its end where it is not closed; or all of the text.

    Lines keep their indentation: a completion of a function's body begins with some.
    """
    found = _FENCED.search(text)
    return found["code"] if found else text
