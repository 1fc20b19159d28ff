"""Words and numbers of every view: cleaned names, shortened names, counts, bytes, shares, ranges of indices.

In: anything an object carries. Out: plain text on one line, not yet escaped for HTML (see ``markup``).
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

MISSING = "–"
_COUNT_UNITS = ("", "k", "M", "G", "T", "P", "E")
_BYTE_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def clean(value: object) -> str:
    r"""Return ``value`` as text on one line that XML allows: control characters and lone surrogates become U+FFFD.

    Direction overrides are replaced too: they would reorder the text around a hostile name.

    >>> clean("a\nb")
    'a b'
    """
    text = value if isinstance(value, str) else str(value)
    return "".join(_clean_character(c) for c in text)


def _clean_character(character: str) -> str:
    if character.isspace():
        return " "
    hidden = unicodedata.category(character) in {"Cc", "Cs"} or unicodedata.bidirectional(character) in _OVERRIDES
    return "\ufffd" if hidden or character in "\ufffe\uffff" else character


_OVERRIDES = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def plain_operator(name: object) -> str:
    """Return an operator's name as people say it: torch's names for its own use are replaced.

    >>> plain_operator("_native_batch_norm_legit_no_training"), plain_operator("conv2d")
    ('batch_norm', 'conv2d')
    """
    return _PLAIN.get(clean(name)) or clean(name)


_PLAIN = {
    "_native_batch_norm_legit_no_training": "batch_norm", "native_batch_norm": "batch_norm", "native_layer_norm": "layer_norm",
    "native_group_norm": "group_norm", "_softmax": "softmax", "_log_softmax": "log_softmax", "_unsafe_view": "view", "_to_copy": "to",
}  # fmt: skip


def width(text: str) -> int:
    """Return the columns ``text`` takes in a monospaced font: wide characters and emoji count two, joined marks none."""
    return sum(_columns(c) for c in text)


def _columns(character: str) -> int:
    if unicodedata.combining(character) or character in "\u200d\ufe0f":
        return 0
    return 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1


def shorten(value: object, limit: int = 40) -> str:
    """Return cleaned text of at most ``limit`` columns.

    A dotted path loses the ends of its leading words first, as its numbers and its last word tell most; what is still too long loses
    its middle.

    >>> shorten("encoder.layer.11.attention.self.query", 28), shorten("a sentence that is too long", 12)
    ('e.l.11.attention.self.query', 'a se…oo long')
    """
    text = _abbreviate(clean(value), limit)
    if width(text) <= limit:
        return text
    head = _take(text, (limit - 1) * 2 // 5)
    tail = _take(text[::-1], limit - 1 - width(head))[::-1]
    return head + "…" + tail


def shorten_all(names: Sequence[str], limit: int) -> list[str]:
    """Return names for one column, shortened alike: the same number of leading words is abbreviated in all of them.

    >>> shorten_all(["encoder.layer.0.query", "encoder.layer.0.out"], 16)
    ['e.layer.0.query', 'e.layer.0.out']
    """
    texts = [clean(name) for name in names]
    words = max((_leading_words(text, limit) for text in texts), default=0)
    return [shorten(_abbreviated(text, words), limit) for text in texts]


def _abbreviate(text: str, limit: int) -> str:
    return _abbreviated(text, _leading_words(text, limit))


def _leading_words(text: str, limit: int) -> int:
    """How many leading words of a dotted path have to lose their ends so that it fits."""
    return next((n for n in range(text.count(".")) if width(_abbreviated(text, n)) <= limit), text.count("."))


def _abbreviated(text: str, words: int) -> str:
    parts = text.split(".")
    if " " in text or len(parts) < 3:
        return text
    words = min(words, len(parts) - 1)
    return ".".join([part if part.isdigit() else part[:1] for part in parts[:words]] + parts[words:])


def _take(text: str, columns: int) -> str:
    taken = ""
    for character in text:
        columns -= _columns(character)
        if columns < 0:
            break
        taken += character
    return taken


def count(value: Any) -> str:
    """Return a number of things: exact up to seven digits, then in three digits with a unit.

    >>> count(82314), count(110_104_890)
    ('82,314', '110 M')
    """
    return MISSING if value is None else _scaled(float(value), _COUNT_UNITS, exact_below=10_000_000)


def size(value: Any) -> str:
    """Return a size given in bytes, in units of 1000.

    >>> size(20_480)
    '20.5 kB'
    """
    return MISSING if value is None else _scaled(float(value), _BYTE_UNITS, exact_below=1000)


def _scaled(value: float, units: tuple[str, ...], *, exact_below: float) -> str:
    if not math.isfinite(value):
        return str(value)
    if abs(value) < exact_below:
        exact = f"{value:,.0f}" if value == round(value) else f"{value:,.1f}"
        return f"{exact} {units[0]}".rstrip()
    power = 0
    while abs(value) >= 999.5 and power < len(units) - 1:
        value, power = value / 1000, power + 1
    digits = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
    return f"{value:.{digits}f} {units[power]}".rstrip()


def percent(share: Any) -> str:
    """Return a share (1 is all) in percent with three digits that mean something.

    >>> percent(0.0308), percent(1), percent(0.0004)
    ('3.08 %', '100 %', '0.04 %')
    """
    if share is None or not math.isfinite(share):
        return MISSING
    value = 100 * float(share)
    if abs(value - round(value)) < 1e-9:
        return f"{value:.0f} %"
    return f"{value:.{2 if abs(value) < 9.995 else 1}f} %"


def number(value: Any) -> str:
    """Return a small number: whole numbers without a point, others with four digits.

    >>> number(8.0), number(0.123456)
    ('8', '0.1235')
    """
    if value is None:
        return MISSING
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return clean(value)
    if not math.isfinite(value):
        return str(value)
    return f"{value:,.0f}" if value == round(value) and abs(value) < 1e9 else f"{value:.4g}"


def spread(values: Any) -> str:
    """Return numbers as the smallest and the largest; one that is alone, or of equals, as itself.

    >>> spread(0.5), spread((0.5, 0.25, 2.0))
    ('0.5', '0.25–2')
    """
    several = [float(value) for value in (values if isinstance(values, (list, tuple)) else (values,))]
    low, high = (number(end) for end in (min(several), max(several)))
    return low if low == high else f"{low}–{high}"


def bits(value: Any) -> str:
    """Return a bit width: whole when it is, else to a tenth; a dash when there is no quantizer.

    >>> bits(8), bits(7.94), bits(None)
    ('8', '7.9', '–')
    """
    if value is None or not math.isfinite(float(value)):
        return MISSING
    return f"{float(value):.1f}".removesuffix(".0")


def bit_range(low_high: Any) -> str:
    """Return a range of bit widths, such as ``4–16``; one number when both ends agree."""
    if low_high is None:
        return MISSING
    low, high = low_high
    return bits(low) if low == high else f"{bits(low)}–{bits(high)}"


_IRREGULAR = {"vertex": "vertices"}


def plural(many: int, noun: str) -> str:
    """Return a count with its noun.

    >>> plural(1, "group"), plural(2, "family"), plural(3, "branch"), plural(0, "vertex")
    ('1 group', '2 families', '3 branches', '0 vertices')
    """
    if many == 1:
        return f"1 {noun}"
    if noun in _IRREGULAR:
        return f"{count(many)} {_IRREGULAR[noun]}"
    plural_noun = (
        noun[:-1] + "ies" if noun.endswith("y") and noun[-2] not in "aeiou" else noun + ("es" if noun.endswith(("s", "x", "ch")) else "s")
    )
    return f"{count(many)} {plural_noun}"


def ranges(indices: Iterable[int]) -> str:
    """Return indices compressed as ranges, in ascending order.

    >>> ranges([0, 1, 2, 3, 7])
    '0-3, 7'
    """
    return ", ".join(f"{first}-{last}" if last > first else str(first) for first, last in _runs(indices))


def _runs(indices: Iterable[int]) -> Iterator[tuple[int, int]]:
    ordered = sorted({int(index) for index in indices})
    start = 0
    for here in range(1, len(ordered) + 1):
        if here == len(ordered) or ordered[here] != ordered[here - 1] + 1:
            yield ordered[start], ordered[here - 1]
            start = here


def shape_text(shape: Any) -> str:
    """Return a tensor shape such as ``1 × 16 × 8 × 8``; symbolic sizes stay as they are; no axes are an empty text."""
    if shape is None:
        return ""
    try:
        return " × ".join(clean(size) for size in shape)
    except TypeError:
        return clean(shape)
