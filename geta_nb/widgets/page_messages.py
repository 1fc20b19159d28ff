"""Lets a page's messages reach Python while a cell is busy, where the kernel can read them in a thread of its own (a subshell).

JupyterLab asks for that thread and names it in its messages. Some ipykernels (7.4) send a widget's messages instead to the loop that wrote
to the page last, which is the busy one when a training thread writes; here the page's wish counts. Other kernels know nothing of this.
"""

from __future__ import annotations

from typing import Any


def heed_page(widget: Any) -> None:
    """Have the messages of ``widget`` read where the page asks for it; call once, after the widget was opened."""
    channel = getattr(widget, "comm", None)
    if channel is not None and hasattr(channel, "_reply_subshell_for"):
        channel._reply_subshell_for = _as_the_page_says


def _as_the_page_says(_data: object, asked: str | None) -> str | None:
    return asked
