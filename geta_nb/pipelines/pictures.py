"""Pictures of a pipeline's data and results: drawn once, saved beside the report, embedded in its page, shown in the notebook.

Each function returns a :class:`Picture`, which shows itself and whose HTML needs no file and no network.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from geta_nb._extra import load
from geta_nb.display.markup import escape
from geta_nb.pipelines.run import Run
from geta_nb.views import VIEWS, Shown, View


@dataclass(frozen=True, repr=False)
class Picture(Shown):
    """A PNG with what it says in words.

    Args:
        label: for readers who do not see it.
        png: the file's bytes.
    """

    label: str
    png: bytes

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return {"text/plain": repr(self), "image/png": base64.b64encode(self.png).decode()}


def _html(picture: Picture) -> str:
    data = base64.b64encode(picture.png).decode()
    return f'<figure><img alt="{escape(picture.label)}" style="max-width:100%;background:#fff" src="data:image/png;base64,{data}"></figure>'


VIEWS[Picture] = View(lambda picture: f"[picture: {picture.label}]", _html)


def _saved(run: Run, name: str, figure: Any, label: str) -> Picture:
    buffer = io.BytesIO()
    if run.remark:  # inside the picture: it may be seen without its page
        figure.text(0.5, -0.02, run.remark, ha="center", va="top", fontsize=8, style="italic", color="#a03000")
        label = f"{label} ({run.remark})"
    # no date and no version in the file: equal runs give equal bytes
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight", metadata={"Software": None})
    (run.folder / f"{name}.png").write_bytes(buffer.getvalue())
    return Picture(label, buffer.getvalue())


def _axes(columns: int, size: tuple[float, float]) -> tuple[Any, list[Any]]:
    # a bare figure: no state of pyplot, nothing that shows itself a second time
    figure = load("matplotlib.figure", "notebook").Figure(figsize=size)
    return figure, [figure.add_subplot(1, columns, i + 1) for i in range(columns)]


def image_row(run: Run, name: str, images: Tensor, titles: Sequence[str], *, most: int = 8) -> Picture:
    """Draw the first few images in a row.

    Args:
        name: file name without its end.
        images: [N, 3, H, W] or [N, 1, H, W], uint8, or float in any range.
        titles: one for each.
    """
    shown = min(len(images), most)
    figure, axes = _axes(shown, (1.25 * shown, 1.5))
    for axis, image, title in zip(axes, images[:shown].float(), titles, strict=False):
        low, high = float(image.min()), float(image.max())
        axis.imshow(((image - low) / max(high - low, 1e-6)).permute(1, 2, 0).clamp(0, 1).numpy(), cmap="gray")  # a colour image has its own
        axis.set_title(title[:14], fontsize=8)
        axis.axis("off")
    return _saved(run, name, figure, f"{shown} images: {', '.join(list(titles)[:shown])}")


def front(run: Run, name: str, points: Mapping[str, tuple[float, float]], *, quality: str, dense: float | None = None) -> Picture:
    """Draw quality against relative BOPs.

    Args:
        points: what -> (relative BOPs as a share, quality).
        quality: name of the vertical axis.
        dense: quality of the dense network, drawn as a line.
    """
    figure, (axis,) = _axes(1, (6.0, 3.6))
    middle = (max(cost for cost, _ in points.values()) + min(cost for cost, _ in points.values())) / 2
    for label, (cost, value) in points.items():
        axis.plot(100 * cost, value, "o", color="#0072b2")
        side = {"ha": "right", "xytext": (-6, 4)} if cost > middle else {"ha": "left", "xytext": (6, 4)}
        axis.annotate(label, (100 * cost, value), textcoords="offset points", fontsize=8, **side)
    if dense is not None:
        axis.axhline(dense, color="#999", linestyle="--", linewidth=1)
        axis.annotate("dense", (1, dense), xycoords=("axes fraction", "data"), textcoords="offset points", xytext=(-32, 3), fontsize=8)
    axis.set_xlabel("relative BOPs (%)")
    axis.set_ylabel(quality)
    axis.margins(0.15)
    said = ", ".join(f"{label} {value:.4g} at {100 * cost:.2f} %" for label, (cost, value) in points.items())
    return _saved(run, name, figure, f"{quality} against relative BOPs: {said}")


def curves(run: Run, name: str, lines: Mapping[str, Sequence[Mapping[str, Any]]], *, key: str) -> Picture:
    """Draw one measure of several runs over their steps.

    Args:
        lines: what -> its history.
        key: which entry of the snapshots; those without it are left out.
    """
    figure, (axis,) = _axes(1, (6.5, 3.4))
    for label, history in lines.items():
        points = [(snapshot["step"], snapshot[key]) for snapshot in history if key in snapshot]
        axis.plot([step for step, _ in points], [value for _, value in points], label=label, linewidth=1.3)
    axis.set_xlabel("step")
    axis.set_ylabel(key)
    axis.legend(fontsize=8)
    ends = ", ".join(f"{label} {[s[key] for s in history if key in s][-1]:.4g}" for label, history in lines.items())
    return _saved(run, name, figure, f"{key} over steps; at the end: {ends}")




def dots(run: Run, name: str, values: Mapping[str, tuple[float, float]], *, quality: str, first: str = "") -> Picture:
    """Draw one value a row, in per cent, best on top, with its standard error as a line to both sides.

    Args:
        values: what -> (share, its standard error).
        quality: name of the horizontal axis.
        first: the row that is drawn filled and in bold.
    """
    ordered = sorted(values.items(), key=lambda item: item[1][0])
    figure, (axis,) = _axes(1, (6.5, 0.6 + 0.3 * len(ordered)))
    for height, (label, (value, error)) in enumerate(ordered):
        face = "#d55e00" if label == first else "white"
        axis.errorbar(100 * value, height, xerr=100 * error, fmt="o", color="#d55e00" if label == first else "#0072b2", mfc=face, capsize=2)
    axis.set_yticks(range(len(ordered)), [label for label, _ in ordered], fontsize=8)
    for tick in axis.get_yticklabels():
        tick.set_fontweight("bold" if tick.get_text() == first else "normal")
    axis.grid(axis="x", color="#ddd", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.set_xlabel(f"{quality} (%)")
    axis.margins(y=0.08)
    said = ", ".join(f"{label} {100 * value:.2f} %" for label, (value, _) in reversed(ordered))
    return _saved(run, name, figure, f"{quality}: {said}")
