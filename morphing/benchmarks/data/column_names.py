"""What datasets call their columns, by what the columns are for."""

from __future__ import annotations

import re

from morphing.benchmarks.data.columns import plain

# Spelt as `plain` spells them; the likelier ones first, then those of the catalogue's languages.
# fmt: off
QUESTION = (
    "question", "query", "problem", "instruction", "prompt", "goal", "ctx", "stem", "sentence",
    "premise", "input", "source", "questionstem", "questiontext",
    *map(plain, (
        "frage", "aufgabe", "pregunta", "pergunta", "domanda", "вопрос", "質問", "問題", "问题",
        "提问", "질문", "คำถาม", "swali", "প্রশ্ন", "ప్రశ్న",
    )),
)
ANSWER = (
    "answer", "answerkey", "answernumber", "answerindex", "answeridx", "correct", "correctanswer",
    "gold", "label", "target", "output", "response", "completion", "solution", "cop", "summary",
    "highlights", "translation", "reference", "ideal", "expected", "answers", "correctoption",
    "correctanswernum",
    *map(plain, (
        "antwort", "lösung", "respuesta", "réponse", "resposta", "risposta", "ответ", "回答",
        "答え", "正解", "解答", "答案", "답변", "정답", "คำตอบ", "jibu", "উত্তর", "సమాధానం",
    )),
)
# fmt: on
CONTEXT = (
    *("context", "passage", "paragraph", "article", "story", "support", "input", "background"),
    *("document", "dialogue", "body", "narrative", "florespassage"),
)
OPTIONS = ("choices", "options", "endings", "candidates", "mc1targets", "answerchoices", "answers")
OPTION_SETS = (
    *(tuple("abcd"[:n]) for n in (4, 3, 2)),
    ("a", "b", "c", "d", "e"),
    *(
        tuple(f"{word}{at}" for at in letters)
        for word in ("option", "choice", "ending", "answer", "mcanswer", "output", "sol", "op")
        for letters in ("abcde", "abcd", "abc", "01234", "0123", "12345", "1234", "123", "12")
    ),
)
RIGHT_AND_WRONG = re.compile(r"(correctanswer|bestanswer)|(distractor|incorrectanswer)s?\d*")
TEXT = ("text", "sentence", "content", "review", "tweet", "comment", "document", "title", "body")
LABEL = (
    "label",
    "labels",
    "sentiment",
    "category",
    "class",
    "intent",
    "emotion",
    "topic",
    "classindex",
)
PAIRS = (
    *(("premise", "hypothesis"), ("sentence1", "sentence2"), ("text1", "text2")),
    *(("question1", "question2"), ("question", "sentence"), ("prompt", "completion")),
)
