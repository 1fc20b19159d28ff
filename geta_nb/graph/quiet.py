"""Torch's exporter without what it says on the way: graphs of attempts that failed, its warnings and its logs. Used by ``trace``.

In: a block that exports. Out: what the user's own forward printed, and nothing of torch's; who asked for more with ``TORCH_LOGS`` gets it.
"""

from __future__ import annotations

import io
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr

_LOGGERS = ("torch.fx.experimental.symbolic_shapes", "torch.export", "torch._export", "torch._dynamo", "torch._functorch")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the block's noise from the user; an error goes through as it is."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    loggers = [logger for logger in loggers if logger.getEffectiveLevel() == logging.WARNING]  # another level was asked for
    levels = [logger.level for logger in loggers]
    held, failed = io.StringIO(), None
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with redirect_stderr(held), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what torch itself deprecates
            yield
    except BaseException as error:
        failed = error
        raise
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if sys.stderr is not None and (text := _without_graphs(held.getvalue(), failed)):
            sys.stderr.write(text)


def _without_graphs(text: str, error: BaseException | None) -> str:
    """Leave out the graph that torch prints where an export fails, and hangs on the error that it raises."""
    while error is not None:
        if (graph := getattr(error, "partial_fx_graph", None)) is not None:
            text = text.replace(f"{graph}\n", "")
        error = error.__cause__ or error.__context__
    return text
