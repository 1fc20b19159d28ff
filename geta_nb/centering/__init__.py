"""Stage 4: layer norms that become root-mean-square norms, exactly. A step that one may leave out.

In: a plain model and example inputs. Out: the same model, in place, which computes the same, and a :class:`Centered` that says what
became of each norm. What is a stream, what writes to it and what reads it is found in the graph; no class is known by name.
"""

from geta_nb.centering.apply import Centered, center

__all__ = ["Centered", "center"]
