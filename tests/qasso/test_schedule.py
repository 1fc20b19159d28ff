"""Where each step belongs, how often the bit bound falls, and which schedules are refused."""

import itertools
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geta_nb.errors import ScheduleError
from geta_nb.qasso.schedule import STAGES, Schedule


@st.composite
def schedules(draw):
    projection, joint = draw(st.integers(1, 60)), draw(st.integers(1, 60))
    return Schedule(
        draw(st.integers(0, 9)), projection, draw(st.integers(1, projection)), joint, draw(st.integers(1, joint)),
        draw(st.integers(0, 5)),
    )  # fmt: skip


@given(schedules())
def test_the_bound_falls_exactly_once_a_period_whatever_divides(schedule):
    bounds = [schedule.upper_bound(s, (2, 32)) for s in range(schedule.cool_down_start + 3)]
    falls = [a - b for a, b in itertools.pairwise(bounds)]
    if 32 - schedule.projection_periods * schedule.bit_reduction >= 2 and schedule.bit_reduction:
        assert sum(f > 0 for f in falls) == schedule.projection_periods
        assert set(falls) <= {0, schedule.bit_reduction}
    assert min(bounds) >= 2
    reached = max(2, 32 - schedule.projection_periods * schedule.bit_reduction)
    assert set(bounds[schedule.projection_end :]) == {reached}


@given(schedules())
def test_joint_periods_cut_the_stage_into_equal_portions(schedule):
    periods = [schedule.joint_period(s) for s in range(schedule.joint_begin, schedule.joint_end)]
    assert [p.period for p in periods] == sorted(p.period for p in periods)
    assert {p.period for p in periods} == set(range(schedule.joint_periods))
    lengths = [sum(p.period == i for p in periods) for i in range(schedule.joint_periods)]
    assert max(lengths) - min(lengths) <= 1
    for i, length in enumerate(lengths):
        mine = [p for p in periods if p.period == i]
        assert [p.k for p in mine] == list(range(length))
        assert {p.length for p in mine} == {length}
    assert schedule.joint_period(schedule.joint_begin - 1) is None
    assert schedule.joint_period(schedule.joint_end) is None


@given(st.integers(4, 5000))
def test_the_default_split_visits_every_stage_and_reaches_four_bits(total):
    schedule = Schedule.for_steps(total)
    schedule.check_fits(total)
    assert [s for s in STAGES if s in {schedule.stage(i) for i in range(total)}] == list(STAGES)
    assert schedule.upper_bound(schedule.projection_end, (4, 16)) == 4


@pytest.mark.parametrize(
    ("steps", "projection_end", "pruning", "portions"),
    [(300, 60, (30, 150), 5), (690, 138, (69, 345), 7), (3752, 562, (75, 775), 20), (10_000, 1500, (200, 2000), 20)],
)
def test_the_default_split_is_the_one_that_measured_best(steps, projection_end, pruning, portions):
    schedule = Schedule.for_steps(steps)
    assert (schedule.projection_end, (schedule.joint_begin, schedule.joint_end)) == (projection_end, pruning)
    assert (schedule.projection_periods, schedule.joint_periods, schedule.bit_reduction) == (6, portions, 2)


@given(st.integers(8, 1_000_000))
def test_the_default_split_leaves_half_of_any_run_but_the_tiniest_to_cool_down(steps):
    schedule = Schedule.for_steps(steps)
    assert schedule.projection_end <= schedule.joint_end <= max(3, steps / 2 + 1)
    assert schedule.upper_bound(schedule.projection_end, (4, 16)) == 4
    if steps >= 300:
        assert schedule.joint_steps // schedule.joint_periods >= 24


def test_overlapping_stages_report_the_joint_one():
    schedule = Schedule(2, 10, 2, 10, 2, joint_start=6)
    assert [schedule.stage(s) for s in (1, 2, 5, 6, 15, 16)] == ["warm-up", "projection", "projection", "joint", "joint", "cool-down"]
    assert schedule.spans() == {"warm-up": (0, 2), "projection": (2, 12), "joint": (6, 16), "cool-down": (16, None)}


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((-1, 10, 2, 10, 2), "warmup_steps"), ((0.5, 10, 2, 10, 2), "warmup_steps"), ((0, 3, 4, 10, 2), "projection"),
        ((0, 3, 0, 10, 2), "projection"), ((0, 3, 1, 2, 3), "joint"), ((0, 0, 1, 2, 2), "projection"),
        ((0, 0, 0, 0, 0), "at least one step"), ((0, 3, 1, 3, 1, -1), "bit_reduction"), ((True, 3, 1, 3, 1), "warmup"),
    ],
)  # fmt: skip
def test_impossible_schedules_are_refused(arguments, match):
    with pytest.raises(ScheduleError, match=match):
        Schedule(*arguments)


def test_the_joint_stage_may_neither_start_in_warm_up_nor_end_before_projection():
    with pytest.raises(ScheduleError, match="inside the warm-up"):
        Schedule(5, 10, 2, 10, 2, joint_start=4)
    with pytest.raises(ScheduleError, match="end after projection"):
        Schedule(0, 10, 2, 3, 1, joint_start=2)


def test_a_run_that_is_too_short_is_refused():
    Schedule(1, 2, 1, 3, 1).check_fits(6)
    with pytest.raises(ScheduleError, match="at least 6 steps"):
        Schedule(1, 2, 1, 3, 1).check_fits(5)
    for total in (3, 0, 10.0, True):
        with pytest.raises(ScheduleError, match="four stages"):
            Schedule.for_steps(total)


def test_the_papers_settings_are_counted_in_epochs():
    vgg = Schedule.paper("vgg7", 100)
    assert (vgg.projection_steps, vgg.projection_periods, vgg.joint_steps, vgg.joint_periods) == (2000, 5, 3000, 10)
    assert vgg.joint_begin == 2000
    assert vgg.bit_reduction == 2
    with pytest.raises(ScheduleError, match="no such setting"):
        Schedule.paper("vgg16", 100)
    with pytest.raises(ScheduleError, match="steps_per_epoch"):
        Schedule.paper("bert", 0)


def test_a_schedule_survives_pickling_and_its_dictionary():
    schedule = Schedule(1, 9, 3, 9, 3, joint_start=5)
    assert pickle.loads(pickle.dumps(schedule)) == schedule == Schedule(**schedule.to_dict())
    assert Schedule.for_steps(100) != schedule
