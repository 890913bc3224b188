"""Curves from what a Trainer logged."""

from itertools import pairwise

from affinage.training.curves import POINTS, curves

HISTORY = [
    {"loss": 5.0, "mlm": 5.0, "learning_rate": 1e-3, "grad_norm": 2.0, "epoch": 0.1, "step": 10},
    {"eval_loss": 4.5, "eval_seconds": 3.0, "eval_runtime": 3.0, "step": 10},
    {"loss": float("nan"), "mlm": 4.0, "epoch": 0.2, "step": 20},
    {"eval_loss": 4.0, "eval_accuracy": 0.5, "step": 20},
    {"train_runtime": 9.0, "train_loss": 4.4, "epoch": 0.2, "step": 20},
]


def test_names_and_points() -> None:
    assert curves(HISTORY, {"loss": "cross_entropy", "mlm": "mlm"}) == {
        "cross_entropy": ((10, 5.0),),
        "mlm": ((10, 5.0), (20, 4.0)),
        "held-out loss": ((10, 4.5), (20, 4.0)),
        "held-out accuracy": ((20, 0.5),),
    }


def test_long_runs_are_thinned_evenly_with_both_ends() -> None:
    history = [{"loss": 1 / step, "step": step} for step in range(1, 5001)]
    (curve,) = curves(history, {"loss": "loss"}).values()
    steps = [step for step, _ in curve]
    assert len(curve) == POINTS
    assert (steps[0], steps[-1]) == (1, 5000)
    gaps = {after - before for before, after in pairwise(steps)}
    assert gaps <= {25, 26}


def test_what_is_logged_twice_at_a_step_counts_once() -> None:
    history = [{"eval_loss": 3.0, "step": 5}, {"eval_loss": 2.0, "step": 5}]
    assert curves(history, {}) == {"held-out loss": ((5, 2.0),)}
