"""What each of the four stages is for: the whole schedule, and four that leave one stage out, for runs of the same length.

The stages are in sequence, as in the paper: a tenth of the run warm-up, a fifth projection, three tenths joint, four tenths cool-down.
The paper's own ablation is a picture that was not at hand; how it leaves a stage out is therefore not known, and this is ours.
"""

from __future__ import annotations

from geta_nb.errors import ConfigError
from geta_nb.qasso import Schedule

PERIODS = 5
WHOLE = "all four stages"


def variants(total_steps: int) -> dict[str, Schedule]:
    """Return name -> schedule for a run of ``total_steps`` optimizer steps.

    - without warm-up, without projection: that stage's steps go to the cool-down. Without projection bit widths never have to fall.
    - joint in one step: all groups go at once, at the step where the stage would have begun.
    - without cool-down: the joint stage lasts to the end.

    Raises:
        ConfigError: fewer steps than the stages have periods.
    """
    warm, projection, joint = total_steps // 10, total_steps // 5, 3 * total_steps // 10
    if warm < 1 or projection < PERIODS or joint < PERIODS:
        least = f"at least {5 * PERIODS} steps"
        raise ConfigError("ablation: the run is too short for its stages.", expected=least, got=f"{total_steps} steps")
    falls = 12 // PERIODS + 1  # 16 to 4 bits
    return {
        WHOLE: Schedule(warm, projection, PERIODS, joint, PERIODS, falls),
        "without warm-up": Schedule(0, projection, PERIODS, joint, PERIODS, falls),
        "without projection": Schedule(warm, 0, 0, joint, PERIODS, falls),
        "joint in one step": Schedule(warm, projection, PERIODS, 1, 1, falls),
        "without cool-down": Schedule(warm, projection, PERIODS, total_steps - warm - projection, PERIODS, falls),
    }


def file_name(variant: str) -> str:
    """Return a variant's name as that of its files.

    >>> file_name("joint in one step")
    'joint_in_one_step'
    """
    return variant.replace(" ", "_").replace("-", "_")
