"""The plan of a run: how steps are timed, and how learning rate and evaluations are described."""

from types import SimpleNamespace

import pytest

from engine import plan
from tests.helpers.training import CPU, make_schedule


@pytest.mark.parametrize(("batches", "timed"), [(1, 1), (2, 1), (3, 1), (5, 3), (9, 5)])
def test_the_first_batches_are_not_timed(batches, timed, monkeypatch):
    clock, images = SimpleNamespace(now=0.0), [SimpleNamespace(images=[0] * 4)] * batches
    monkeypatch.setattr(plan.time, "perf_counter", lambda: clock.now)
    monkeypatch.setattr(plan, "LEAST_SECONDS", 10.0)
    seconds = iter([100.0, 100.0 if batches > 2 else 2.0, *[2.0] * 20] if batches > 1 else [2.0])

    def step(batch):
        clock.now += next(seconds)

    assert plan.seconds_per_image(step, images, CPU, "steps") == (0.5, timed)


@pytest.mark.parametrize(
    ("select_by", "best", "final_tests"),
    [("mAP", "the best model is selected by mAP", 1), ("last", "the last model is the best", 0)],
)
def test_evaluations(select_by, best, final_tests):
    """If the last model is the best, there is no other model to test."""
    schedule = make_schedule(num_epoch=7, start_eval=3, eval_interval=2, select_by=select_by)
    lines, tests = plan.plan_evaluations(schedule)
    assert lines == [("evaluations", f"2, the first after epoch 4; {best}")]
    assert sorted(tests) == ["final"] * final_tests + ["plain"] * 2


def test_a_training_without_evaluations():
    assert plan.plan_evaluations(make_schedule(eval_interval=0)) == ([], [])


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"num_epoch": 3, "lr_step": []}, "0.1 in epochs 1 to 3"),
        ({"num_epoch": 4, "lr_step": [2, 3]}, "0.1 in epochs 1 to 2, 0.01 in epoch 3, 0.001 in epoch 4"),
        (
            {"num_epoch": 30, "lr_step": [20], "warmup_epochs": 10},
            "0.01 to 0.1 in epochs 1 to 10 (warm-up), 0.1 in epochs 11 to 20, 0.01 in epochs 21 to 30",
        ),
    ],
)
def test_learning_rates(keys, expected):
    assert plan.learning_rates(make_schedule(lr=0.1, **keys)) == expected
