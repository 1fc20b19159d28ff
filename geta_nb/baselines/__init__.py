"""Stage 16: what one would do instead: each method in one file and all with one call, so that they compare with GETA at equal cost.

In: a :class:`~geta_nb.baselines.task.Task` (network, data, epochs) and the relative BOPs to meet. Out: a ``Result``. Every method is a
function ``compress(task, relative_bops, *, seed, activations=False, ...)``. ``task`` is what all share, ``space`` the groups and
prices, ``attach`` and ``gates`` the mechanics; the rest are methods.
"""

__all__ = [
    "bayesian_bits",
    "clipq",
    "djpq",
    "eagleeye",
    "hesso",
    "language",
    "llm_pruner",
    "lsq",
    "magnitude",
    "minmax",
    "narrow",
    "slicegpt",
    "space",
    "task",
]
