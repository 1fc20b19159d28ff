"""The distance to a teacher: zero where both agree, the written formula elsewhere, gradients for the network alone."""

from types import SimpleNamespace

import pytest
import torch

import geta_nb as gt
from geta_nb.errors import ConfigError, InputError


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5])
@pytest.mark.parametrize("shape", [(7,), (4, 7), (4, 3, 7)])
def test_it_is_the_softened_divergence_averaged_over_all_but_classes(temperature, shape):
    student, teacher = torch.randn(2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).unbind()
    p, q = ((x / temperature).softmax(-1) for x in (teacher, student))
    expected = temperature**2 * (p * (p / q).log()).sum(-1).mean()
    torch.testing.assert_close(gt.distill(student, teacher, temperature=temperature), expected)


def test_the_network_alone_learns_and_from_answers_that_agree_nothing():
    student, teacher = torch.randn(5, 3, requires_grad=True), torch.randn(5, 3, requires_grad=True)
    gt.distill(SimpleNamespace(logits=student), SimpleNamespace(logits=teacher)).backward()
    assert student.grad is not None and student.grad.any() and teacher.grad is None
    assert gt.distill(student, student).item() == pytest.approx(0, abs=1e-7)


def test_half_types_are_computed_in_float32():
    student, teacher = torch.randn(2, 8, 100, generator=torch.Generator().manual_seed(0)).mul(30).unbind()
    loss = gt.distill(student.bfloat16(), teacher.bfloat16())
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, gt.distill(student.bfloat16().float(), teacher.bfloat16().float()))


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((torch.ones(2, 3), torch.ones(2, 4)), {}, InputError, r"different shapes"),
        ((torch.ones(2, 3).long(), torch.ones(2, 3)), {}, InputError, "outputs are no logits"),
        ((torch.ones(2, 3), None), {}, InputError, r"teacher_outputs are no logits(?s:.*)NoneType"),
        ((torch.ones(2, 3), torch.ones(2, 3)), {"temperature": 0}, ConfigError, "temperature"),
        ((torch.ones(2, 3), torch.ones(2, 3)), {"temperature": True}, ConfigError, "temperature"),
    ],
)
def test_what_is_no_pair_of_logits_is_refused(arguments, options, error, message):
    with pytest.raises(error, match=message):
        gt.distill(*arguments, **options)
