"""When each of the four stages runs, counted in optimizer steps. Comes in from the user, goes to the optimizer.

All questions are answered from the number of steps already done, so nothing has to be remembered but that number.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from geta_nb.errors import ScheduleError
from geta_nb.views import Shown

WARM_UP, PROJECTION, JOINT, COOL_DOWN = "warm-up", "projection", "joint", "cool-down"
STAGES = (WARM_UP, PROJECTION, JOINT, COOL_DOWN)

_PAPER = {  # network: (projection epochs, B, joint epochs, P); settings table of arXiv:2502.16638, as transcribed
    "vgg7": (20, 5, 30, 10),
    "resnet20": (35, 7, 30, 5),
    "resnet50": (5, 5, 10, 10),
    "bert": (1, 4, 6, 6),
}


class JointPeriod(NamedTuple):
    """Where a step stands inside the joint stage: ``period`` of P, step ``k`` of its ``length`` T."""

    period: int
    k: int
    length: int


@dataclass(frozen=True)
class Schedule(Shown):
    """Steps and periods of the stages; what follows the last one is cool-down.

    Args:
        warmup_steps: plain training first, >= 0.
        projection_steps: steps in which the upper bit bound falls, >= 0.
        projection_periods: how often it falls, B <= projection_steps; each period ends with a fall.
        joint_steps: steps in which groups are forgotten, >= 0.
        joint_periods: in how many portions, P <= joint_steps.
        bit_reduction: bits per fall, b_r >= 0.
        joint_start: the step at which pruning begins; None: after projection (the paper); earlier: the two overlap.

    Raises:
        ScheduleError: negative or fractional counts, more periods than steps, joint stage ending before projection does.

    >>> Schedule(2, 10, 3, 20, 5).cool_down_start
    32
    """

    warmup_steps: int
    projection_steps: int
    projection_periods: int
    joint_steps: int
    joint_periods: int
    bit_reduction: int = 2
    joint_start: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if name == "joint_start" and value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise ScheduleError(f"Schedule: {name} is a count.", expected="a whole number >= 0", got=repr(value))
        for stage in (PROJECTION, JOINT):
            steps, periods = getattr(self, f"{stage}_steps"), getattr(self, f"{stage}_periods")
            if periods > steps or (steps and not periods):
                raise ScheduleError(
                    f"Schedule: the periods do not fit the {stage} stage.",
                    expected=f"1 <= {stage}_periods <= {stage}_steps (or both 0)",
                    got=f"{stage}_periods={periods}, {stage}_steps={steps}",
                    hint=f"{stage}_periods={min(max(periods, 1), steps)}",
                )
        if self.joint_start is not None and self.joint_start < self.warmup_steps:
            raise ScheduleError(
                "Schedule: pruning begins inside the warm-up.",
                expected=f"joint_start >= {self.warmup_steps}", got=f"joint_start={self.joint_start}",
            )
        if self.joint_end < self.projection_end or self.cool_down_start == 0:
            raise ScheduleError(
                "Schedule: the joint stage has to end after projection, and after at least one step.",
                expected=f"joint end >= {max(self.projection_end, 1)}", got=f"joint end = {self.joint_end}",
                hint=f"joint_steps={self.joint_steps + max(self.projection_end, 1) - self.joint_end}",
            )

    @property
    def projection_end(self) -> int:
        """First step after projection."""
        return self.warmup_steps + self.projection_steps

    @property
    def joint_begin(self) -> int:
        """First step of the joint stage."""
        return self.projection_end if self.joint_start is None else self.joint_start

    @property
    def joint_end(self) -> int:
        """First step after the joint stage."""
        return self.joint_begin + self.joint_steps

    @property
    def cool_down_start(self) -> int:
        """Steps after which all constraints hold: the shortest run this schedule fits into."""
        return self.joint_end

    def stage(self, step: int) -> str:
        """Name of the stage that step ``step`` (0 is the first) belongs to; where two overlap, it is the joint one."""
        if step >= self.cool_down_start:
            return COOL_DOWN
        if step >= self.joint_begin:
            return JOINT
        return PROJECTION if step >= self.warmup_steps else WARM_UP

    def reductions(self, steps_done: int) -> int:
        """How often the upper bit bound has fallen once ``steps_done`` steps are done: 0 .. B, B at the projection's end."""
        inside = min(max(steps_done - self.warmup_steps, 0), self.projection_steps)
        return inside * self.projection_periods // self.projection_steps if self.projection_steps else 0

    def upper_bound(self, steps_done: int, bit_range: tuple[int, int]) -> int:
        """The upper bit bound, in bits: max(b_l, b_u - b_r * reductions)."""
        lower, upper = bit_range
        return max(lower, upper - self.bit_reduction * self.reductions(steps_done))

    def joint_period(self, step: int) -> JointPeriod | None:
        """Where ``step`` stands in the joint stage, or None outside it. Period p is steps floor(p J/P) .. floor((p+1) J/P)."""
        offset = step - self.joint_begin
        if not 0 <= offset < self.joint_steps:
            return None
        steps, periods = self.joint_steps, self.joint_periods
        index = ((offset + 1) * periods - 1) // steps
        first, last = index * steps // periods, (index + 1) * steps // periods
        return JointPeriod(index, offset - first, last - first)

    def spans(self) -> dict[str, tuple[int, int | None]]:
        """First step and first step after each stage; the cool-down is open (None). Projection and joint may overlap."""
        return {
            WARM_UP: (0, self.warmup_steps),
            PROJECTION: (self.warmup_steps, self.projection_end),
            JOINT: (self.joint_begin, self.joint_end),
            COOL_DOWN: (self.cool_down_start, None),
        }

    def check_fits(self, total_steps: int) -> None:
        """Raise :class:`ScheduleError` when a run of ``total_steps`` ends before all constraints hold."""
        if total_steps < self.cool_down_start:
            raise ScheduleError(
                "Schedule: the run ends before the joint stage does.",
                expected=f"at least {self.cool_down_start} steps", got=f"{total_steps} steps",
                hint=f"Schedule.for_steps({total_steps})",
            )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-able values; ``Schedule(**values)`` is the inverse."""
        return asdict(self)

    @classmethod
    def for_steps(cls, total_steps: int) -> Schedule:
        """Return the default split of a run: bits fall and groups go early, in many portions; half of the run at least is cool-down.

        Pruning begins after 10 % of the steps or after 75, whichever is sooner (never before 2 %), and takes 40 % of the run or 700 steps,
        whichever is less (never under 18 %), in up to 20 portions of 35 steps or more. Bits fall six times (fewer, larger falls in a tiny
        run) until 20 % of the run or step 550, whichever is sooner (never before 15 %). So a run of 700 steps prunes from 10 to 50 %, one
        of 4000 from 2 to 20 %: what a network needs to recover from a portion is steps, not a share of the run. Long runs were measured
        on validation images of the fashion benchmark (docs/fashion.md, ``stages="late"``); short ones keep what the digits had.

        Args:
            total_steps: optimizer steps of the whole run, >= 4: one a stage.

        Raises:
            ScheduleError: fewer than 4 steps.
        """
        if not isinstance(total_steps, int) or isinstance(total_steps, bool) or total_steps < 4:
            raise ScheduleError(
                "Schedule.for_steps: a run needs a step for each of the four stages.",
                expected="a whole number >= 4", got=repr(total_steps),
            )
        warmup = max(1, total_steps // 100)
        projection_end = max(warmup + 1, total_steps * 15 // 100, min(total_steps // 5, 550))
        begin = max(warmup + 1, total_steps // 50, min(total_steps // 10, 75))
        length = max(1, total_steps * 18 // 100, min(total_steps * 2 // 5, 700), projection_end - begin)
        falls = min(6, projection_end - warmup)
        portions = min(length, max(5, min(20, length // 35)))
        return cls(warmup, projection_end - warmup, falls, length, portions, -(-12 // falls), joint_start=begin)

    @classmethod
    def paper(cls, name: str, steps_per_epoch: int) -> Schedule:
        """Return the published settings for ``"vgg7"``, ``"resnet20"``, ``"resnet50"`` or ``"bert"``.

        The settings table gives no warm-up, so there is none. Source: Qu et al. 2025, arXiv:2502.16638, as transcribed.

        Args:
            name: the network.
            steps_per_epoch: optimizer steps in one epoch, >= 1; the largest B or P must fit its epochs.

        Raises:
            ScheduleError: an unknown name, or too few steps.
        """
        if not isinstance(name, str) or name not in _PAPER:
            raise ScheduleError("Schedule.paper: no such setting.", expected=", ".join(_PAPER), got=repr(name))
        if not isinstance(steps_per_epoch, int) or isinstance(steps_per_epoch, bool) or steps_per_epoch < 1:
            raise ScheduleError(
                "Schedule.paper: steps_per_epoch is a count.", expected="a whole number >= 1", got=repr(steps_per_epoch)
            )
        projection, falls, joint, periods = _PAPER[name]
        return cls(0, projection * steps_per_epoch, falls, joint * steps_per_epoch, periods)
