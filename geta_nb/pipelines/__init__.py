"""Stage 18: the paper's experiments as notebooks: their data, networks and settings, and the command line that runs them.

In: data in their real formats, or stand-ins for them, and the settings of a notebook. Out: a folder with the packed network,
``report.json`` and ``report.html``; a run that was killed goes on bit for bit. One file a data set, a family of networks, or a part
that the notebooks share. Last room: nothing of the package imports it.
"""

__all__ = [
    "ablation",
    "carn",
    "cifar",
    "cli",
    "compress",
    "conv_nets",
    "fashion",
    "hf_nets",
    "image_folder",
    "images",
    "language",
    "pictures",
    "published",
    "recipes",
    "results",
    "run",
    "squad",
    "squad_task",
    "superres",
    "sweep",
    "tables",
    "text",
    "vision_nets",
]
