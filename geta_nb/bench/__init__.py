"""Stage 17: the measurements behind the tables of README and docs: real data, fixed seeds, no tuning per row.

In: nothing but options of a command, ``python -m geta_nb.bench.<table>``. Out: JSON of each row and a table in Markdown, into a folder;
a run that was stopped goes on. ``digits`` and ``fashion`` are the problems that notebooks share, ``jobs`` how rows are run and kept,
``peers`` other packages. Some modules want the extra ``bench``, ``notebook`` or ``export``: importing this room imports none.
"""

__all__ = [
    "deploy",
    "digits",
    "fashion",
    "jobs",
    "lm_cells",
    "lm_table",
    "peers",
    "peers_table",
    "predicted",
    "run_notebook",
    "texts",
]
