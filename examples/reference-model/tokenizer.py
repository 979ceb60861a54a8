"""Trains tokenizer.json: a small byte-level BPE in which every digit is its own token."""

import argparse
import json
from random import Random

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from data import BOS, EOS, HERE, INTRO, NOISE, TrainingWords, draw_numbers, needle, question, training_paragraphs

# The Llama 3 pattern, but \p{N} instead of \p{N}{1,3}.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def corpus(bible, rng):
    """Training prose, needle sentences and questions, and words as they stand in a needle."""
    yield from (p + "\n" for p in training_paragraphs(bible))
    words = TrainingWords()
    for _ in range(4000):
        word, number = words.one(rng), draw_numbers(rng, 1)[0]
        yield INTRO + NOISE[0] + "\n"
        yield "".join(needle(word, number, " ", True).pieces + question(word).pieces)
    # A word alone costs many tokens: names and compounds get a share of the merges.
    for _ in range(60000):
        yield " " + words.one(rng)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vocab", type=int, default=2048)
    parser.add_argument("--bible", help="a file of `bible -f` output; default: run the program")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=args.vocab,
        special_tokens=[BOS, EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tok.train_from_iterator(corpus(args.bible, Random(args.seed)), trainer)
    tok.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, tok.token_to_id(BOS))]
    )
    tok.save(str(HERE / "tokenizer.json"))

    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "model_max_length": 139264,
        "clean_up_tokenization_spaces": False,
    }
    (HERE / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")


if __name__ == "__main__":
    main()
