"""English words by pocketsphinx, whose package brings its model: words are checked out of the box.

Two passes over a small vocabulary. The first has a bigram model of the sentence beside two hundred
common words that are not in it, so that speech about something else is heard as something else. The
second hears the stretch after the last word of the sentence with a loop of the ten digits alone.
"""

from __future__ import annotations

import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from difflib import SequenceMatcher
from functools import cache
from math import log10
from pathlib import Path
from typing import Any

import numpy as np

from chorister.client.recogniser import Heard
from chorister.shared.types import SAMPLE_RATE_HZ, FloatArray
from chorister.shared.voice.loudness import match_level

_SPEECH_LUFS = -26.0
_FRAME_SAMPLES = SAMPLE_RATE_HZ // 100
# Probability that the sentence goes on as written; the rest goes to all words alike.
_FOLLOW = 0.75
# A word's end is found to a few frames: the first digit must not lose its beginning.
_MARGIN_FRAMES = 5
# What one more digit costs, as a factor on the probability: without it one word becomes two,
# "seven" becomes "six one".
_DIGIT_PENALTY = 5e-4
_OTHER_WORDS = (  # noqa: SIM905
    "about after again always animal another around back because before began being best better "
    "between big book boy bring brother came change child children city come country course day "
    "did different does done door down during each early earth end enough even every eye face "
    "family far father feel find first food form found friend from full gave girl give go good "
    "great green ground group grow had half hand hard has have he head hear help her here high "
    "him his home house however hundred if important into it just keep kind king land large "
    "last late learn leave left less let letter life light like line list little live long look "
    "love man many mean men might miss money more morning most mother mountain move much must "
    "name near need never next night nothing off often old once only open or our out over own "
    "paper part people picture place plant play point put question quick read real rest right "
    "river road room round run said same saw school sea second see seem sentence set she ship "
    "short should show side simple sing sit sleep slow small so some soon song sound stand start "
    "state stay step still stop story street strong study such sun sure table take talk teach "
    "tell than their them then there these they thing think those thought through together told "
    "too took toward town travel tree true try turn under until up us usual very walk want war "
    "was watch water way we week well went were what when where which while white who whole why "
    "will wind with without woman wonder wood word work world would year yes yet you young your"
).split()


class Sphinx:
    """pocketsphinx with its own English model; the same for the same samples."""

    name = "pocketsphinx en-us"

    def hear(self, samples: FloatArray, words: Sequence[str], digit_words: Sequence[str]) -> Heard:
        """Return the words, and the digits after them."""
        known = [word for word in words if word in _pronunciations()]
        others = [word for word in _OTHER_WORDS if word not in known]
        found = _decode(samples, (*known, *digit_words, *others), _follows(known, digit_words))
        end = _end_of_sentence(found, known)
        spoken = _decode(samples[end * _FRAME_SAMPLES :], digit_words, {}, wip=_DIGIT_PENALTY)
        numbers = {word: digit for digit, word in enumerate(digit_words)}
        heard = " ".join(word for word, _ in found)
        digits = tuple(numbers[word] for word, _ in spoken if word in numbers)
        return Heard(heard, digits, end / 100.0 if digits else None)


def _end_of_sentence(found: list[tuple[str, int]], sentence: Sequence[str]) -> int:
    """Frame at which the last word that fits into the sentence's order ends."""
    # In order: 'to' and 'for', which the sentence holds, are also how two and four are misheard.
    matcher = SequenceMatcher(None, [word for word, _ in found], sentence, autojunk=False)
    blocks = [block for block in matcher.get_matching_blocks() if block.size]
    if not blocks:
        return 0
    return max(found[blocks[-1].a + blocks[-1].size - 1][1] - _MARGIN_FRAMES, 0)


def _decode(
    samples: FloatArray,
    vocabulary: Sequence[str],
    follows: dict[str, Counter[str]],
    **options: float,
) -> list[tuple[str, int]]:
    """Words with the frame at which each ends, silences left out."""
    import pocketsphinx

    if len(samples) < SAMPLE_RATE_HZ // 4:
        return []
    levelled = np.clip(match_level(samples, _SPEECH_LUFS), -1.0, 1.0)
    with tempfile.TemporaryDirectory() as folder:
        dictionary, model = Path(folder, "words.dict"), Path(folder, "words.lm")
        sounds = _pronunciations()
        lines = [line for word in vocabulary for line in sounds[word]]
        dictionary.write_text("\n".join(lines) + "\n", encoding="ascii")
        model.write_text(_arpa(vocabulary, follows), encoding="ascii")
        # The tree pass alone: on vocabularies this small the later passes take minutes.
        decoder: Any = pocketsphinx.Decoder(
            hmm=pocketsphinx.get_model_path("en-us/en-us"),
            dict=str(dictionary),
            lm=str(model),
            fwdflat=False,
            bestpath=False,
            loglevel="FATAL",
            **options,
        )
    decoder.start_utt()
    decoder.process_raw((levelled * 32767).astype(np.int16).tobytes(), full_utt=True)
    decoder.end_utt()
    wanted = set(vocabulary)
    found = [(part.word.partition("(")[0], part.end_frame) for part in decoder.seg()]
    return [(word, end) for word, end in found if word in wanted]


def _follows(words: Sequence[str], digit_words: Sequence[str]) -> dict[str, Counter[str]]:
    """How often each word is followed by which, in the sentence with any digits at its end."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for first, second in zip(("<s>", *words), words, strict=False):
        counts[first][second] += 1
    for first in (*digit_words, *words[-1:]):
        counts[first].update(digit_words)
    for digit in digit_words:
        counts[digit]["</s>"] += 2
    return counts


def _arpa(vocabulary: Sequence[str], follows: dict[str, Counter[str]]) -> str:
    """A back-off bigram model in the ARPA format."""
    words = list(dict.fromkeys(vocabulary))
    uniform, back_off = log10(1.0 / (len(words) + 1)), log10(1.0 - _FOLLOW)
    one = [f"-99 <s> {back_off if '<s>' in follows else 0.0:.4f}", f"{uniform:.4f} </s>"]
    one += [f"{uniform:.4f} {w} {back_off if w in follows else 0.0:.4f}" for w in words]
    two = [
        f"{log10(_FOLLOW * count / sum(counts.values())):.4f} {first} {second}"
        for first, counts in follows.items()
        for second, count in counts.items()
    ]
    head = ["\\data\\", f"ngram 1={len(one)}", *([f"ngram 2={len(two)}"] if two else []), ""]
    pairs = ["", "\\2-grams:", *two] if two else []
    return "\n".join([*head, "\\1-grams:", *one, *pairs, "", "\\end\\", ""])


@cache
def _pronunciations() -> dict[str, list[str]]:
    """Lines of the model's dictionary by word."""
    import pocketsphinx

    path = Path(pocketsphinx.get_model_path("en-us/cmudict-en-us.dict"))
    found: dict[str, list[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        word = line.split(" ", 1)[0].partition("(")[0]
        found.setdefault(word, []).append(line)
    return found
