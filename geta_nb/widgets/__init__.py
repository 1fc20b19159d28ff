"""Stage 15: the notebook's widgets: traits, callbacks, the training thread; each also as text and picture without a kernel.

In: a :class:`~geta_nb.geta.GETA`, a training step, a budget. Out: widgets that steer it, and pages that stand alone. The browser's side
lies in the checkout's ``widgets/``. The modules want the extra ``notebook`` and are imported when they are asked for: importing this
room imports none. Stands on the core and on ``display``, never the reverse.
"""

__all__ = [
    "budget_panel",
    "comparing",
    "explorer",
    "exports",
    "live_run",
    "publish",
    "studio",
]
