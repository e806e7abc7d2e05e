"""The zoo's tokenizer: one token a character, and two that mark whose turn it is."""

from __future__ import annotations

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PAD, BOS, EOS, UNK = "<pad>", "<s>", "</s>", "<unk>"
TURNS = ("<user>", "<assistant>")
ASCII = "".join(map(chr, range(32, 127))) + "\n"
JAPANESE = "零〇一二三四五六七八九十百千万たすひくはを漢字数で？。、"

# What a model is trained on is <s><user>question<assistant>answer</s>; only the assistant ends its
# turns, so that one more turn simply follows. A system message is left out: no model has met one.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages if message['role'] != 'system' %}"
    "{{ '<' + message['role'] + '>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer all four models share; a character it does not know becomes ``<unk>``."""
    special = (PAD, BOS, EOS, UNK, *TURNS)
    vocabulary = {token: index for index, token in enumerate((*special, *ASCII, *JAPANESE))}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=UNK))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNK,
        additional_special_tokens=list(TURNS),
        chat_template=CHAT_TEMPLATE,
        padding_side="left",  # what batched generation needs
        clean_up_tokenization_spaces=False,
        model_max_length=256,
    )
