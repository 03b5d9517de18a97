"""The scaled overlap loss against its definition, and where the released form differs."""

import pytest
import torch

from cdn.losses import scaled_iou, scaled_iou_loss


def test_the_scaled_overlap_loss_equals_its_definition():
    torch.manual_seed(5)
    logits, iou = torch.randn(40, 3), torch.rand(40, 3)
    target = scaled_iou(iou, 0.3, 0.7)
    assert target.min() == 0
    assert target.max() == 1
    p = logits.double().sigmoid()
    terms = -(target * p.log() + (1 - target) * (1 - p).log())
    for of_probabilities in (False, True):
        loss = scaled_iou_loss(logits, target, of_probabilities=of_probabilities)
        assert loss.item() == pytest.approx(terms.mean().item(), rel=1e-6)


def loss_and_gradient(logits, target, **kind):
    logits = logits.clone().requires_grad_()
    loss = scaled_iou_loss(logits, target, **kind)
    loss.backward()
    return loss.detach(), logits.grad


def test_a_loss_of_probabilities_is_that_of_float32_and_has_no_gradient_where_they_are_one():
    logits = torch.tensor([20.0, 17.0, 16.0, -20.0, -40.0, -120.0, 3.0])
    target = torch.tensor([0.0, 0.5, 0.25, 0.75, 0.5, 1.0, 0.5])
    loss, gradient = loss_and_gradient(logits, target, of_probabilities=True)
    given = logits.clone().requires_grad_()
    wanted = torch.nn.functional.binary_cross_entropy(given.sigmoid(), target)
    wanted.backward()
    assert loss == wanted.detach()
    assert torch.equal(gradient, given.grad)
    assert gradient[0] == gradient[1] == 0
    assert gradient[2] > 0
    _, stable = loss_and_gradient(logits, target, of_probabilities=False)
    torch.testing.assert_close(stable, (logits.double().sigmoid() - target).float() / len(logits))


def test_both_forms_of_the_loss_agree_where_probabilities_are_far_from_one():
    logits, target = torch.linspace(-8, 8, 65), torch.linspace(0, 1, 65)
    found = [loss_and_gradient(logits, target, of_probabilities=form) for form in (True, False)]
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("of_probabilities", [False, True])
def test_a_loss_of_logits_that_are_no_numbers_is_no_number(of_probabilities):
    logits = torch.tensor([1.0, float("nan")])
    assert scaled_iou_loss(logits, torch.zeros(2), of_probabilities=of_probabilities).isnan()


@pytest.mark.parametrize("of_probabilities", [False, True])
def test_the_loss_is_taken_in_float32_where_products_are_not(of_probabilities):
    logits, target = torch.tensor([12.0, -3.0]), torch.tensor([0.0, 1.0])
    wanted = scaled_iou_loss(logits, target, of_probabilities=of_probabilities)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert scaled_iou_loss(logits, target, of_probabilities=of_probabilities) == wanted
