"""Baselines: what one would do instead, each method in one file and all with one call, so that they compare at equal cost.

Every method is a function ``compress(task, relative_bops, *, seed, activations=False, ...) -> Result``. ``task`` is what all share
(network, data, epochs), ``space`` the groups and prices, ``attach`` and ``gates`` the mechanics; the rest are methods.
"""
