"""Greedy generation from a file of ``gt.export_decoder``, in ONNX Runtime or OpenVINO, and how many tokens a second it gives.

Comes in: a file and the tokens of a prompt. Goes out: the tokens that follow, the likeliest each time. The prompt is read in one call, then
each token in one; keys and values go back in as they came out. Wants the extra ``export``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor, nn

from geta_nb.errors import ArtifactError, ConfigError
from geta_nb.graph import eval_mode
from geta_nb.latency.runtimes import Array, Run, open_onnxruntime, open_openvino

Tokens = npt.NDArray[np.int64]
RUNTIMES: Mapping[str, Callable[..., Run]] = {"onnxruntime": open_onnxruntime, "openvino": open_openvino}


@dataclass(frozen=True)
class Generated:
    """What a prompt led to.

    Attributes:
        tokens: prompt and what follows, [B, P + N].
        prompt_seconds: of the one call that read the prompt, processor time of this process.
        step_seconds: of each later call, [N - 1].
    """

    tokens: Tokens
    prompt_seconds: float
    step_seconds: tuple[float, ...]

    @property
    def tokens_per_second(self) -> float:
        """Tokens of one row a second, once the prompt is read: over the median of a step."""
        return 1 / max(float(np.median(self.step_seconds)), 1e-9) if self.step_seconds else float("nan")


class Decoder:
    """A language model's file, opened for generating.

    Args:
        path: of ``export_decoder``.
        runtime: "onnxruntime" or "openvino".
        threads: of one operator.

    Raises:
        ConfigError: no such runtime.
        ArtifactError: a file without past keys and values.
    """

    def __init__(self, path: str | Path, *, runtime: str = "onnxruntime", threads: int = 1) -> None:
        if runtime not in RUNTIMES:
            raise ConfigError("Decoder: no such runtime.", expected=" or ".join(map(repr, RUNTIMES)), got=repr(runtime))
        facts = {item.key: item.value for item in onnx.load(str(path), load_external_data=False).metadata_props}
        if "past" not in facts:
            raise ArtifactError(
                "Decoder: a file without past keys and values.", at=path, expected="a file of gt.export_decoder",
                hint="gt.export_decoder(subnet, path, input_ids)",
            )
        self.shapes: list[tuple[int, int]] = [tuple(shape) for shape in json.loads(facts["past"])]
        options: dict[str, Any] = {"fold_weights": True} if runtime == "onnxruntime" else {}
        self._run = RUNTIMES[runtime](path, threads=threads, **options)

    def step(self, input_ids: Tokens, past: list[Array]) -> tuple[Array, list[Array]]:
        """Return logits, [B, S, V], and keys and values with what is new, [B, heads, P + S, width] each.

        Args:
            input_ids: the next tokens, [B, S].
            past: keys and values so far; of no token: :meth:`empty`.
        """
        logits, *present = self._run({"input_ids": input_ids, **{f"past_{n}": tensor for n, tensor in enumerate(past)}})
        return logits, present

    def empty(self, rows: int) -> list[Array]:
        """Return the keys and values of no token, [rows, heads, 0, width] each."""
        return [np.zeros((rows, heads, 0, width), dtype=np.float32) for heads, width in self.shapes]

    def generate(self, input_ids: Any, new_tokens: int) -> Generated:
        """Return the prompt and ``new_tokens`` tokens after it, the likeliest each time.

        Args:
            input_ids: prompts of one length, [B, P], P >= 1.
            new_tokens: how many, >= 1.
        """
        tokens = np.asarray(input_ids, dtype=np.int64)
        return _greedy(self.step, tokens, self.empty(len(tokens)), new_tokens)


def generate_in_torch(net: nn.Module, input_ids: Tensor, new_tokens: int) -> Generated:
    """Return the same from a network of ``transformers`` in eager torch, with the cache that it makes itself; timed in the same way.

    Args:
        net: a causal LM, in any mode.
        input_ids: prompts of one length, [B, P].
        new_tokens: how many, >= 1.
    """

    def step(ids: Tokens, past: Any) -> tuple[Array, Any]:
        found = net(input_ids=torch.from_numpy(ids), past_key_values=past, use_cache=True)
        return found.logits.numpy(), found.past_key_values

    with eval_mode(net), torch.inference_mode():
        return _greedy(step, input_ids.numpy(), None, new_tokens)


def _greedy(step: Callable[[Tokens, Any], tuple[Array, Any]], tokens: Tokens, past: Any, new_tokens: int) -> Generated:
    seconds, ids = [], tokens
    for _ in range(new_tokens):
        started = time.process_time()
        logits, past = step(ids, past)
        ids = logits[:, -1].argmax(-1)[:, None].astype(np.int64)
        seconds.append(time.process_time() - started)
        tokens = np.concatenate([tokens, ids], axis=1)
    return Generated(tokens, seconds[0], tuple(seconds[1:]))
