"""Our scoring engine as a model of lm-evaluation-harness."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from lm_eval.api.model import LM

from morphing.benchmarks.engine.chat_template import Turns, chat_text
from morphing.benchmarks.engine.encode import (
    NotFiniteError,
    Request,
    context_length,
    continuations,
    fit,
    prompts,
    windows,
)
from morphing.benchmarks.engine.generate import generate
from morphing.benchmarks.engine.likelihood import Likelihood, log_likelihoods
from morphing.benchmarks.engine.thinking import Thinking
from morphing.rendering.process import TemplateFailed

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Reply:
    """What the engine says to one request.

    ``value`` is in the harness's form: (log-likelihood, whether greedy decoding would give it), the
    log-likelihood of a whole text, or the generated text. ``tokens`` are those generated.
    ``thought`` and ``unfinished`` are as in `results.Output`.
    """

    value: Any
    tokens: int = 0
    truncated: bool = False
    thought: str = ""
    unfinished: bool = False


def encode(tokenizer: PreTrainedTokenizerBase, requests: Sequence[Instance]) -> list[Request]:
    """The tokens of each of the harness's requests, however long; of no model in particular."""
    found: dict[int, Request] = {}
    for kind, places in _by(lambda request: request.request_type, requests).items():
        texts = [requests[at].args for at in places]
        # As in the harness: a chat template may write the token that begins a text itself.
        begin = tokenizer.bos_token
        special = not (begin and texts[0][0].startswith(begin))
        if kind == "generate_until":
            encoded = prompts(tokenizer, [text for text, _ in texts], special)
        else:
            # A whole text follows nothing.
            pairs = [("", *text) if len(text) == 1 else _parted(*text) for text in texts]
            encoded = continuations(tokenizer, pairs, special)
        found |= zip(places, encoded, strict=True)
    return [found[at] for at in range(len(requests))]


class EngineLM(LM):
    """A loaded model that answers the harness's requests greedily, by Morphing's engine.

    ``limit`` is the number of new tokens of any generated text, whatever a request says, and
    ``thinking_tokens`` what a thought before it may take; ``progress`` gets the share that is done.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        limit: int = 256,
        batch_size: int | None = None,
        progress: Callable[[float], None] = lambda share: None,
        thinking_tokens: int = 0,
    ) -> None:
        super().__init__()
        self.thinking_tokens = thinking_tokens
        self.model, self.tokenizer = model, tokenizer
        self.limit, self.batch_size, self.progress = limit, batch_size, progress

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        return [reply.value for reply in self.replies(requests)]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        return [reply.value for reply in self.replies(requests)]

    def generate_until(self, requests: list[Instance]) -> list[str]:
        return [reply.value for reply in self.replies(requests)]

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        return self.render(self.tokenizer, chat_history, add_generation_prompt)

    @property
    def tokenizer_name(self) -> str:
        return str(self.tokenizer.name_or_path)

    @staticmethod
    def render(
        tokenizer: PreTrainedTokenizerBase,
        messages: Turns,
        reply: bool = True,
        thinking: Thinking = "auto",
    ) -> str:
        """Turns of a chat as a template writes them; without the system's where it must.

        ``reply``: the assistant's turn is opened; otherwise the last message is left unfinished.
        """

        try:
            return chat_text(tokenizer, messages, thinking, reply)
        except TemplateFailed:
            kept = [turn for turn in messages if turn["role"] != "system"]
            return chat_text(tokenizer, kept, thinking, reply)

    def replies(
        self, requests: Sequence[Instance], encoded: Sequence[Request] | None = None
    ) -> list[Reply]:
        """The reply to each request; ``encoded`` are their tokens where they are known.

        Raises:
            MorphingError: an answer alone fills the context, or memory is too small for one.
        """
        tokens = encode(self.tokenizer, requests) if encoded is None else encoded
        found: dict[int, Reply] = {}
        for kind, places in _by(lambda request: request.request_type, requests).items():
            report = partial(_report, self.progress, len(found), len(places), len(requests))
            answer = self._written if kind == "generate_until" else self._likely
            replies = answer([requests[at] for at in places], [tokens[at] for at in places], report)
            found |= zip(places, replies, strict=True)
        return [found[at] for at in range(len(requests))]

    def _likely(
        self,
        requests: Sequence[Instance],
        encoded: Sequence[Request],
        report: Callable[[float], None],
    ) -> list[Reply]:
        if requests[0].request_type == "loglikelihood_rolling":
            context = context_length(self.model, 1)
            parts = [list(windows(request, context)) for request in encoded]
        else:
            parts = [[request] for request in fit(self.model, self.tokenizer, encoded)]
        # A document's requests have most of their tokens in common.
        places = _by(lambda request: (request.task_name, request.doc_id), requests).values()
        groups = [[part for at in group for part in parts[at]] for group in places]
        documents = [requests[group[0]].doc_id for group in places]
        with _of_documents(documents, self.model.dtype):
            found = iter(log_likelihoods(self.model, groups, self.batch_size, report))
        replies = {
            at: _joined(requests[at], [next(found) for _ in parts[at]])
            for group in places
            for at in group
        }
        return [replies[at] for at in range(len(requests))]

    def _written(
        self,
        requests: Sequence[Instance],
        encoded: Sequence[Request],
        report: Callable[[float], None],
    ) -> list[Reply]:
        fitting = fit(self.model, self.tokenizer, encoded, self.limit)
        found: dict[int, Reply] = {}
        for stops, places in _by(_stops, requests).items():
            with _of_documents([requests[at].doc_id for at in places], self.model.dtype):
                written = generate(
                    self.model,
                    self.tokenizer,
                    [fitting[at] for at in places],
                    self.limit,
                    stops,
                    self.batch_size,
                    partial(_count, report, len(found), len(requests)),
                    self.thinking_tokens,
                )
            for at, reply in zip(places, written, strict=True):
                found[at] = Reply(
                    reply.text,
                    reply.tokens,
                    fitting[at].truncated,
                    reply.thought,
                    reply.unfinished,
                )
        return [found[at] for at in range(len(requests))]


@contextmanager
def _of_documents(documents: Sequence[Any], dtype: object) -> Iterator[None]:
    """Let an error of logits tell the document that it arose in, which is a sample's place."""
    try:
        yield
    except NotFiniteError as error:
        raise NotFiniteError(documents[error.at], dtype) from error


def _by(key: Callable[[Instance], Any], requests: Sequence[Instance]) -> dict[Any, list[int]]:
    places: dict[Any, list[int]] = {}
    for at, request in enumerate(requests):
        places.setdefault(key(request), []).append(at)
    return places


def _parted(context: str, continuation: str) -> tuple[str, str]:
    """As the harness does: spaces between the two are the continuation's."""
    kept = context.rstrip()
    return (kept, context[len(kept) :] + continuation) if kept else (context, continuation)


def _joined(request: Instance, parts: Sequence[Likelihood]) -> Reply:
    whole = sum(part.logprob for part in parts)
    rolling = request.request_type == "loglikelihood_rolling"
    value = whole if rolling else (whole, parts[0].greedy)
    return Reply(value, truncated=any(part.truncated for part in parts))


def _stops(request: Instance) -> tuple[str, ...]:
    until = request.args[1].get("until") or ()
    return tuple(filter(None, (until,) if isinstance(until, str) else until))


def _report(
    progress: Callable[[float], None], before: int, count: int, total: int, share: float
) -> None:
    progress((before + share * count) / total)


def _count(progress: Callable[[float], None], before: int, total: int, done: int) -> None:
    progress((before + done) / total)
