"""The language-model benchmark as a task: a causal LM of Llama's form, the text that every machine has, one way to train for all rows.

In: a size. Out: rows of token ids to train on, to choose by and to judge by, split by file; a fresh network; a training that depends on
seed and step alone. No number here is chosen per row.
"""

from __future__ import annotations

import hashlib
import math
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from geta_nb.bench.speed_nets import imported
from geta_nb.bench.texts import Rows, next_token_loss, perplexity, standard_library, token_rows, train_tokenizer
from geta_nb.files import checkpoint
from geta_nb.graph import eval_mode

CHECKPOINT_STEPS = 25


@dataclass(frozen=True)
class Size:
    """How large network, text and runs are.

    Args:
        hidden, intermediate, layers, heads: of the network; heads are hidden / heads wide, queries, keys and values alike.
        vocabulary: tokens.
        length: tokens of a row.
        characters: of text at most.
        judged: rows of validation, and as many of test text.
        batch: rows of a step.
        shallow_steps, dense_steps: of the dense training, with two layers and with all.
        tune_steps: of whatever a method does after it.
    """

    hidden: int
    intermediate: int
    layers: int
    heads: int
    vocabulary: int
    length: int
    characters: int
    judged: int
    batch: int
    shallow_steps: int
    dense_steps: int
    tune_steps: int


SIZES = {
    "full": Size(512, 1536, 8, 8, 2048, 128, 8_000_000, 64, 4, 1500, 1000, 96),
    "smoke": Size(32, 64, 2, 4, 320, 32, 60_000, 8, 4, 6, 6, 12),
}
"""``full``: 29.4M parameters, nine tenths of them in blocks."""
LEARNING_RATE, TUNE_RATE, WEIGHT_DECAY, BETAS = 1e-3, 1e-4, 0.1, (0.9, 0.95)


def network(size: Size, *, seed: int = 0) -> nn.Module:
    """Return a fresh causal LM of Llama's form (Touvron et al. 2023, arXiv:2302.13971): root-mean-square norms, rotary positions, SwiGLU.

    Embedding and head are two tensors: a cut that folds the last norm into the head (``baselines.slicegpt``) then has no tensor more
    than the others. No state is kept of a call unless it is asked for.
    """
    hf = imported("transformers")
    config = hf.LlamaConfig(
        vocab_size=size.vocabulary, hidden_size=size.hidden, intermediate_size=size.intermediate, num_hidden_layers=size.layers,
        num_attention_heads=size.heads, num_key_value_heads=size.heads, max_position_embeddings=512, tie_word_embeddings=False,
        use_cache=False, bos_token_id=0, eos_token_id=0, pad_token_id=None, attn_implementation="sdpa",
    )  # fmt: skip
    torch.manual_seed(seed)
    model: nn.Module = hf.LlamaForCausalLM(config)
    return model


@dataclass(frozen=True)
class Text:
    """Rows of tokens.

    Args:
        rows: to train on, [N, length], int64.
        validation, test: judged by, [judged, length] each, of files that nothing trains on; options are chosen by the first alone.
        tokenizer: made from the training text.
    """

    rows: Tensor
    validation: Rows
    test: Rows
    tokenizer: Any


def fingerprint(*rows: Tensor) -> str:
    """Return sixteen hexadecimal digits of rows of tokens: another Python brings another text."""
    return hashlib.sha256(b"".join(part.numpy().tobytes() for part in rows)).hexdigest()[:16]


@lru_cache(maxsize=2)
def read_text(size: Size) -> Text:
    """Return the text: of the held-back files every second one is test, the others validation; judged rows are spread over all of them."""
    train, held = standard_library(most=size.characters)
    tokenizer = train_tokenizer(train, vocabulary=size.vocabulary)
    parts = [token_rows(tokenizer, train, part, length=size.length) for part in (held[0::2] or held, held[1::2] or held)]
    validation, test = (_spread(part, size.judged, tokenizer) for part in parts)
    return Text(parts[0].train, validation, test, tokenizer)


def _spread(rows: Rows, count: int, tokenizer: Any) -> Rows:
    held = rows.held[torch.linspace(0, len(rows.held) - 1, min(count, len(rows.held))).long()]
    return Rows(rows.train[:0], held, sum(len(tokenizer.decode(row).encode()) for row in held.tolist()))


def batches(rows: Tensor, batch: int, *, seed: int, first: int, last: int) -> Iterator[Tensor]:
    """Yield batches ``first`` to ``last`` - 1, [batch, length]: each is a function of seed and number."""
    per_epoch = len(rows) // batch
    for step in range(first, last):
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(1_000_003 * seed + step // per_epoch))
        place = step % per_epoch * batch
        yield rows[order[place : place + batch]]


def rate_share(step: int, steps: int, *, fall: bool = True) -> float:
    """Share of the learning rate: up in a line for a twentieth of the run, then down to a twentieth along half a cosine, or level."""
    rise = min(1.0, (step + 1) / max(1, steps // 20))
    return min(rise, 0.05 + 0.95 * (1 + math.cos(math.pi * step / steps)) / 2) if fall else rise


def adamw(parameters: Any, rate: float) -> torch.optim.Optimizer:
    """Return the optimizer of all rows."""
    return torch.optim.AdamW(parameters, lr=rate, betas=BETAS, weight_decay=WEIGHT_DECAY)


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, rows: Tensor, *, batch: int, steps: int, seed: int, first: int = 0,
    fall: bool = True, after: Callable[[int, float], None] = lambda step, loss: None,
) -> None:
    """Train in place with the loss of the next token, gradients of at most length 1.

    Args:
        rows: [N, length].
        batch: rows of a step.
        steps: of the whole run.
        seed: of the order of rows.
        first: the step to begin with.
        fall: the learning rate falls towards the end.
        after: called with (steps done, loss) after each step.
    """
    model.train()
    parameters = list(model.parameters())
    for step, inputs in enumerate(batches(rows, batch, seed=seed, first=first, last=steps), start=first):
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * rate_share(step, steps, fall=fall)
        optimizer.zero_grad(set_to_none=True)
        loss = next_token_loss(model, inputs)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        after(step + 1, float(loss.detach()))


Say = Callable[[str], None]


def trained_dense(size: Size, folder: Path, *, seed: int = 0, say: Say = lambda line: None) -> nn.Module:
    """Return the dense network, from ``folder`` where it is kept, else trained, from its last checkpoint if it was stopped.

    Two layers alone first, which cost a third a step; then all of them, in between, that begin as identities.
    """
    few = network(replace(size, layers=2), seed=seed)
    _train_kept(few, size, folder, "shallow", size.shallow_steps, seed=seed, say=say)
    model = deepened(few, network(size, seed=seed + 1))
    _train_kept(model, size, folder, "dense", size.dense_steps, seed=seed + 1, say=say)
    return model.eval()


def deepened(few: nn.Module, model: nn.Module) -> nn.Module:
    """Give ``model`` the tensors of a network of two layers, its first and its last one; layers between add nothing yet.

    Their projections into the residual stream are zero (Wu et al. 2024, LLaMA Pro, arXiv:2401.02415), so that both compute the same;
    their other weights stay fresh, so that no layer repeats another.
    """
    last = len(model.get_submodule("model.layers")) - 1  # type: ignore[arg-type]
    state = {name.replace("layers.1.", f"layers.{last}."): value for name, value in few.state_dict().items()}
    model.load_state_dict(state, strict=False)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name not in state and name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter.zero_()
    return model


def _train_kept(model: nn.Module, size: Size, folder: Path, name: str, steps: int, *, seed: int, say: Say) -> None:
    rows, first = read_text(size).rows, 0
    optimizer = adamw(model.parameters(), LEARNING_RATE)
    decides = (replace(size, judged=0, tune_steps=0), seed, fingerprint(rows), torch.__version__)
    file = folder / f"{name}-{hashlib.sha256(repr(decides).encode()).hexdigest()[:12]}.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    if file.exists():
        state = checkpoint.read(file)
        model.load_state_dict(state["model"])
        first = int(state["step"])
        if first < steps:
            optimizer.load_state_dict(state["optimizer"])

    def after(step: int, loss: float) -> None:
        if step % CHECKPOINT_STEPS == 0 or step == steps:
            say(f"{name}: step {step} of {steps}, loss {loss:.3f}")
            state = {"model": model.state_dict(), "step": step}
            checkpoint.write(file, state | ({"optimizer": optimizer.state_dict()} if step < steps else {}))

    train(model, optimizer, rows, batch=size.batch, steps=steps, seed=seed, first=first, fall=name == "dense", after=after)


def judge(model: nn.Module, rows: Rows) -> float:
    """Return the perplexity per token of held-back rows, each read on its own."""
    with eval_mode(model), torch.no_grad():
        return perplexity(model, rows=rows)["perplexity"]


def versions() -> dict[str, str]:
    """Return what the text and the numbers depend on."""
    return {"python": platform.python_version(), "torch": torch.__version__, "transformers": str(imported("transformers").__version__)}
