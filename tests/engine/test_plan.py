"""The plan of a run: how steps are timed, how learning rate and evaluations are described, time and disk space."""

from types import SimpleNamespace

import pytest
import torch

from engine import plan
from engine.checkpoints import LAST, RECENT_KEPT, run_bytes
from tests.helpers.training import CPU, TinyData, make_schedule, make_training
from utils.rerank import MSER
from utils.run.folder import STATES


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


def test_the_time_is_that_of_training_and_of_all_tests(monkeypatch):
    """One second per image: 26 test images, 13 of them visible, in four spectra in the final tests of two models."""
    for name in ("split", "name", "counts", "root"):
        monkeypatch.setattr(TinyData, name, "", raising=False)
    for name in ("time_training", "time_extraction"):
        monkeypatch.setattr(plan, name, lambda *_: plan.Timing(1.0, 3))
    training = make_training()
    evaluator = SimpleNamespace(dataset=TinyData(), extractor=None, mser=MSER(5, 3, 0.3), device=CPU)
    lines = dict(plan.plan(training.model, training, evaluator, make_schedule(num_epoch=3)))
    trained = sum(plan.epoch_lengths(training, 3)) * 4
    seconds = trained + (1 + 3) * 26 + 2 * (26 + 3 * 13)
    assert lines["time"] == f"about {plan.clock(seconds)} for the run, without scoring"


def test_the_disk_space_is_that_of_all_checkpoints_and_one_state_more(whole_run):
    checkpoint, state = ((whole_run / name).stat().st_size for name in (LAST, max(whole_run.glob(STATES)).name))
    model = SimpleNamespace(state_dict=lambda: torch.load(whole_run / LAST, weights_only=True))
    assert run_bytes(model) == pytest.approx((2 + RECENT_KEPT) * checkpoint + 3 * state, rel=0.02)
    assert run_bytes(model) > sum(path.stat().st_size for path in whole_run.glob("*.pth"))
