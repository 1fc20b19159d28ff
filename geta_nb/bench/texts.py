"""Text for language models: files of a folder, or the Python standard library's own source, as rows of token ids; loss and perplexity.

In: ``.txt``, ``.md`` and ``.py`` files. Out: training rows of a fixed length and held-back rows, split by file, so that no text is in both.
"""

from __future__ import annotations

import math
import sysconfig
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geta_nb._extra import load
from geta_nb.errors import InputError

ENDS = (".txt", ".md", ".py")
HELD_BACK = 10
"""Every tenth file is held back."""


def read_texts(folder: Path, *, most: int | None = None) -> tuple[list[str], list[str]]:
    """Return the texts to train on and the texts that are held back, whole files in the order of their names.

    Args:
        folder: is read with all folders inside it.
        most: stop after so many characters; None: all.

    Raises:
        InputError: fewer than two files with text.
    """
    train: list[str] = []
    held: list[str] = []
    read = 0
    files = (file for file in sorted(folder.rglob("*")) if file.suffix in ENDS and file.is_file())
    texts = (file.read_text(encoding="utf-8", errors="replace") for file in files)
    for number, text in enumerate(text for text in texts if text.strip()):
        (held if number % HELD_BACK == HELD_BACK - 1 or number == 1 else train).append(text)
        read += len(text)
        if most is not None and read >= most and held:
            break
    if not train or not held:
        expected = f"at least two files that end in {', '.join(ENDS)}"
        raise InputError("read_texts: too little text.", at=folder, expected=expected, got=f"{len(train) + len(held)} files")
    return train, held


def standard_library(*, most: int) -> tuple[list[str], list[str]]:
    """Return the first ``most`` characters of the Python standard library's top-level source files, split like :func:`read_texts`."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(folder.glob("*.py"))
    texts = [file.read_text(encoding="utf-8", errors="replace") for file in files]
    train = [text for number, text in enumerate(texts) if number % HELD_BACK]
    held = [text for number, text in enumerate(texts) if not number % HELD_BACK]
    return _first(train, most), _first(held, most // HELD_BACK)


def _first(texts: Iterable[str], most: int) -> list[str]:
    kept: list[str] = []
    for text in texts:
        if sum(map(len, kept)) >= most:
            break
        kept.append(text[: most - sum(map(len, kept))])
    return kept


def train_tokenizer(texts: Sequence[str], *, vocabulary: int) -> Any:
    """Return a byte-level BPE tokenizer (of ``tokenizers``) trained on these texts; it can write every text there is.

    Args:
        vocabulary: number of tokens, > 257.
    """
    tokenizers = load("tokenizers", "bench")
    tokenizer = tokenizers.ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(texts, vocab_size=vocabulary, show_progress=False, special_tokens=["<|end|>"])
    return tokenizer


def read_tokenizer(folder: str | Path) -> Any:
    """Return the tokenizer of a folder's ``tokenizer.json``.

    Raises:
        InputError: it is missing, or is none.
    """
    file = Path(folder) / "tokenizer.json"
    if not file.exists():
        raise InputError("read_tokenizer: no tokenizer there.", at=file, expected="tokenizer.json, as save_pretrained writes it")
    try:
        return load("tokenizers", "bench").Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare Exception
        raise InputError("read_tokenizer: not a tokenizer.", at=file, got=str(error)[:200]) from error


@dataclass(frozen=True)
class Rows:
    """Token ids in rows.

    Args:
        train: [N, length], int64.
        held: [M, length], int64.
        held_bytes: length in UTF-8 of the held-back rows' text, for a measure that does not depend on the tokenizer.
    """

    train: Tensor
    held: Tensor
    held_bytes: int

    def draw(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Return training rows, [B, length]."""
        return self.train[rows]


def token_rows(tokenizer: Any, train: Sequence[str], held: Sequence[str], *, length: int, most_held: int | None = None) -> Rows:
    """Return texts as rows of ``length`` tokens; texts follow one another, the rest at the end is left out.

    Args:
        most_held: keep so many held-back rows; None: all.

    Raises:
        InputError: a part has fewer tokens than a row.
    """
    parts = []
    for name, texts in (("train", train), ("held", held)):
        ids = [token for text in texts for token in tokenizer.encode(text).ids]
        if len(ids) < length:
            raise InputError(f"token_rows: the {name} text is shorter than a row.", expected=f"{length} tokens", got=len(ids))
        parts.append(torch.tensor(ids[: len(ids) // length * length]).view(-1, length))
    held_rows = parts[1][:most_held]
    return Rows(parts[0], held_rows, sum(len(tokenizer.decode(row).encode()) for row in held_rows.tolist()))


def next_token_loss(model: nn.Module, rows: Tensor) -> Tensor:
    """Return the mean cross-entropy of each next token, in nats."""
    outputs = model(rows)
    logits: Tensor = getattr(outputs, "logits", outputs)[:, :-1]
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), rows[:, 1:].reshape(-1))


def perplexity(model: nn.Module, *, rows: Rows, batch_size: int = 16) -> dict[str, float]:
    """Return perplexity (per token) and bits per byte of the held-back rows, each row read on its own."""
    device = next(model.parameters()).device
    nats = math.fsum(float(next_token_loss(model, part.to(device))) * part[:, 1:].numel() for part in rows.held.split(batch_size))
    return {"perplexity": math.exp(min(nats / rows.held[:, 1:].numel(), 700)), "bits_per_byte": nats / math.log(2) / rows.held_bytes}
