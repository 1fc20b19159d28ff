"""SliceGPT's cut: the residual stream is turned onto its principal axes, and the smallest of them are deleted.

A root-mean-square norm without a weight commutes with every rotation Q: norm(x Q) = norm(x) Q. So with the norms' weights folded into the
layers that read them, each block may have axes of its own,

    C_k = sum over calibration tokens of norm(x_k)' norm(x_k) = Q_k diag(e) Q_k',   e falling
    W_in <- W_in Q_k        W_out <- Q_(k+1)' W_out        residual x <- x Q_k' Q_(k+1)

for every place k where a norm reads the stream; embedding and head turn with the first and the last. Deleting columns of Q_k deletes
directions. The norms go on dividing by the root of the sum over the *whole* width, as what is deleted is taken to be near zero.
Source: Ashkboos et al. 2024, arXiv:2401.15024 (SliceGPT). As there, one width for all blocks, and a matrix on every residual connection,
which counts. Departures: all C_k are taken from the network as it was, not from the blocks before as they are sliced; recovery trains
all weights, where the paper fits low-rank adapters.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from geta_nb.baselines.language import Loss
from geta_nb.errors import BudgetError, InputError
from geta_nb.graph import eval_mode

CALIBRATION_ROWS = 64
LAYERS = "model.layers"


class SlicedNorm(nn.Module):
    """x / sqrt(sum(x**2) / whole + eps): the root-mean-square norm of a stream of ``whole`` channels of which the others are zero."""

    def __init__(self, whole: int, eps: float) -> None:
        super().__init__()
        self.whole, self.eps = whole, eps

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised stream, shape of ``x``."""
        return x * torch.rsqrt(x.pow(2).sum(-1, keepdim=True) / self.whole + self.eps)


class SlicedLayer(nn.Module):
    """Attention and MLP beside residual connections that turn from one block's axes to the next one's."""

    def __init__(self, layer: nn.Module, shortcuts: Sequence[Tensor], norms: Sequence[SlicedNorm]) -> None:
        super().__init__()
        self.self_attn, self.mlp = layer.get_submodule("self_attn"), layer.get_submodule("mlp")
        self.input_layernorm, self.post_attention_layernorm = norms
        self.attn_shortcut, self.mlp_shortcut = (_linear(matrix.T) for matrix in shortcuts)

    def forward(self, hidden_states: Tensor, **options: Any) -> Tensor:
        """Return the stream after the layer; ``options`` are what the network hands its layers."""
        mixed, _ = self.self_attn(hidden_states=self.input_layernorm(hidden_states), **options)
        x = self.attn_shortcut(hidden_states) + mixed
        found: Tensor = self.mlp_shortcut(x) + self.mlp(self.post_attention_layernorm(x))
        return found


def _linear(weight: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight = nn.Parameter(weight.detach().contiguous().to(torch.float32))
    return layer


def norms_of(model: nn.Module) -> list[nn.Module]:
    """Return the norms that read the residual stream, in order: two a layer and the last.

    Raises:
        InputError: a network that is not named as transformers names Llama's modules, or one with biases or a tied head.
    """
    try:
        layers: Any = model.get_submodule(LAYERS)
        found = [layer.get_submodule(name) for layer in layers for name in ("input_layernorm", "post_attention_layernorm")]
        linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
        tied = model.get_submodule("lm_head").weight is model.get_submodule("model.embed_tokens").weight
        norms = [*found, model.get_submodule("model.norm")]
    except AttributeError as error:
        raise _refused(str(error)) from None
    if tied or any(layer.bias is not None for layer in linear):
        raise _refused("a head tied to the embedding" if tied else "a layer with a bias")
    return norms


def _refused(got: str) -> InputError:
    expected = f"{LAYERS}, lm_head, RMS norms; no biases, head not tied"
    return InputError("slicegpt: not a network of Llama's form.", expected=expected, got=got)


def directions(model: nn.Module, rows: Tensor, *, batch: int = 8) -> list[Tensor]:
    """Return Q_k of each place where a norm reads the stream, largest direction first, [D, D] each, float64.

    Args:
        model: of Llama's form.
        rows: calibration rows of tokens, [N, length].
        batch: rows of a call.
    """
    norms = norms_of(model)
    sums = [torch.zeros((), dtype=torch.float64) for _ in norms]

    def watch(index: int) -> Any:
        def hook(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0].detach().flatten(0, -2).double()
            x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + _eps(norm))
            sums[index] = sums[index] + x.T @ x

        return hook

    hooks = [norm.register_forward_pre_hook(watch(index)) for index, norm in enumerate(norms)]
    try:
        with eval_mode(model), torch.no_grad():
            for part in rows.split(batch):
                model(part)
    finally:
        for hook in hooks:
            hook.remove()
    return [torch.linalg.eigh(matrix)[1].flip(-1) for matrix in sums]


def _eps(norm: nn.Module) -> float:
    return float(norm.variance_epsilon)  # type: ignore[arg-type]


def slice_width(model: nn.Module, parameters: int) -> int:
    """Return the widest stream with which the sliced network has at most ``parameters`` parameters.

    Raises:
        BudgetError: one channel is too dear.
    """
    embedding: Any = model.get_submodule("model.embed_tokens")
    whole = int(embedding.weight.shape[1])
    norms = norms_of(model)
    beside = sum(p.numel() for p in model.parameters()) - sum(p.numel() for norm in norms for p in norm.parameters())
    width = next((d for d in range(whole, 0, -1) if beside * d // whole + (len(norms) - 1) * d * d <= parameters), 0)
    if not width:
        least = beside // whole + len(norms) - 1
        raise BudgetError("slicegpt: out of reach with one channel.", expected=f"parameters >= {least}", got=f"parameters={parameters}")
    return width


def sliced(model: nn.Module, turns: Sequence[Tensor], width: int) -> nn.Module:
    """Return the network with a residual stream of ``width`` channels; of the whole width it computes what ``model`` computes.

    Args:
        model: of Llama's form; it stays as it is.
        turns: Q_k from :func:`directions`.
        width: directions that stay, 1 .. D.
    """
    twin: Any = copy.deepcopy(model)
    norms, whole = norms_of(twin), turns[0].shape[0]
    kept = [turn[:, :width] for turn in turns]
    gains = [_weight(norm) for norm in norms]

    def reads(layer: nn.Module, place: int) -> None:
        _set(layer, (_weight(layer) * gains[place]) @ kept[place])

    def writes(layer: nn.Module, place: int) -> None:
        _set(layer, kept[place].T @ _weight(layer))

    bare = [SlicedNorm(whole, _eps(norm)) for norm in norms]
    embedding = twin.model.embed_tokens
    embedding.weight = nn.Parameter((_weight(embedding) @ kept[0]).float())
    embedding.embedding_dim = width
    for number, layer in enumerate(twin.model.layers):
        first, second, after = 2 * number, 2 * number + 1, 2 * number + 2
        for name in ("q_proj", "k_proj", "v_proj"):
            reads(layer.self_attn.get_submodule(name), first)
        writes(layer.self_attn.o_proj, second)
        for name in ("gate_proj", "up_proj"):
            reads(layer.mlp.get_submodule(name), second)
        writes(layer.mlp.down_proj, after)
        shortcuts = [kept[first].T @ kept[second], kept[second].T @ kept[after]]
        twin.model.layers[number] = SlicedLayer(layer, shortcuts, bare[first:after])
    reads(twin.lm_head, len(norms) - 1)
    twin.model.norm = bare[-1]
    found: nn.Module = twin
    return found


def _weight(module: Any) -> Tensor:
    weight: Tensor = module.weight.detach().double()
    return weight


def _set(layer: Any, weight: Tensor) -> None:
    layer.weight = nn.Parameter(weight.float().contiguous())
    layer.out_features, layer.in_features = weight.shape


def cut(model: nn.Module, rows: Tensor, loss: Loss, *, parameters: int) -> nn.Module:
    """Return the network with as wide a residual stream as the number of parameters allows.

    Args:
        model: the trained network, of Llama's form.
        rows: calibration rows of tokens, [N, length]; the first :data:`CALIBRATION_ROWS` are read.
        loss: not asked.
        parameters: at most so many stay, the matrices on residual connections counted.

    Raises:
        InputError: a network of another form.
        BudgetError: one channel is too dear.
    """
    width = slice_width(model, parameters)
    return sliced(model, directions(model, rows[:CALIBRATION_ROWS]), width)
