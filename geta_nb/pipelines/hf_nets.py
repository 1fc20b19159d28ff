"""Networks that ``transformers`` has, built from a configuration (random weights) or from a folder; nothing is ever downloaded.

In: a name and a size. Out: a network. ``full`` sizes are the published ones; ``small`` ones train on a CPU in minutes, ``tiny`` in seconds.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from geta_nb._extra import load
from geta_nb.errors import ConfigError, InputError

Options = Mapping[str, Any]
SIZES = ("full", "small", "tiny")


@contextmanager
def quiet_import() -> Iterator[Any]:
    """Give ``transformers``; what it and the packages that it looks for log while they load is not for the reader of a notebook."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield load("transformers", "bench")
    finally:
        logging.disable(before)


def build(model: str, config: str, options: Options, *, seed: int = 0) -> nn.Module:
    """Return a network of ``transformers`` with random weights.

    Args:
        model: name of its class.
        config: name of its configuration's class.
        options: of the configuration.
    """
    torch.manual_seed(seed)
    with quiet_import() as hf:
        net: nn.Module = getattr(hf, model)(getattr(hf, config)(**options))
    return net


def from_folder(model: str, folder: str | Path) -> nn.Module:
    """Return a network from a folder that ``save_pretrained`` wrote: ``config.json`` and ``model.safetensors``; no other file is opened.

    Raises:
        InputError: no such files there, or not of this network.
    """
    place = Path(folder)
    if not (place / "config.json").exists() or not list(place.glob("*.safetensors")):
        raise InputError("from_folder: no network there.", at=place, expected="config.json and *.safetensors")
    options = {"local_files_only": True, "use_safetensors": True, "dtype": torch.float32}
    try:
        with quiet_import() as hf:
            net: nn.Module = getattr(hf, model).from_pretrained(str(place), **options)
    except (OSError, ValueError) as error:
        raise InputError("from_folder: the network cannot be read.", at=place, expected=f"a {model}", got=str(error)[:200]) from error
    return net


def check_size(size: str) -> str:
    """Return ``size`` if there is one of that name.

    Raises:
        ConfigError: there is none.
    """
    if size not in SIZES:
        raise ConfigError("hf_nets: no such size.", expected=" or ".join(map(repr, SIZES)), got=repr(size))
    return size


_PHI: Mapping[str, Options] = {
    # Phi-2: 2.7B parameters; rotary embedding of 0.4 of each head, attention and MLP side by side
    "full": {
        "vocab_size": 51200, "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 32, "num_attention_heads": 32,
        "max_position_embeddings": 2048, "partial_rotary_factor": 0.4,
    },
    "small": {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4},
    "tiny": {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 4},
}  # fmt: skip


def phi(size: str, *, vocabulary: int | None = None, seed: int = 0) -> nn.Module:
    """Return a language model of Phi-2's form (``transformers``' Phi).

    Args:
        vocabulary: number of tokens; None: the published one.
    """
    options = dict(_PHI[check_size(size)]) | ({"vocab_size": vocabulary} if vocabulary else {})
    special = {"use_cache": False, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}
    return build("PhiForCausalLM", "PhiConfig", options | special, seed=seed)


_BERT: Mapping[str, Options] = {
    "full": {},  # BERT-base: 110M parameters
    "small": {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4},
    "tiny": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4},
}


def bert_answering(size: str, *, vocabulary: int | None = None, seed: int = 0) -> nn.Module:
    """Return BERT with a head for the two ends of an answer.

    Args:
        vocabulary: number of tokens; None: the published one.
    """
    options = dict(_BERT[check_size(size)]) | ({"vocab_size": vocabulary} if vocabulary else {})
    return build("BertForQuestionAnswering", "BertConfig", options, seed=seed)
