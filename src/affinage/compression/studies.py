"""The database of a search: Optuna's studies, which several workers may share, or one that is killed takes up again."""

import sqlite3
import time
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from affinage.errors import InputError, MissingExtra

if TYPE_CHECKING:
    from optuna import Study, Trial

_BEAT, _STALE = 60, 600
"""seconds: how often a worker says that it lives, and after how long a silent one's plan is given to another"""
_WAIT = 2.0
"""seconds between two looks at what other workers have done"""
_OPENINGS = 2
"""times that a database is tried again: of two workers that make its tables at the same moment one fails"""
_TIMEOUT = 60
"""seconds that SQLite waits for another's lock"""


def check_extra() -> None:
    """Raises: MissingExtra where Optuna is not installed."""
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise MissingExtra("optuna", "search") from None


def open_studies(
    url: str, wanted: Sequence[tuple[str, Literal["minimize", "maximize"]]], *, alone: bool
) -> "list[Study]":
    """Studies of these names and directions in the database at `url`, made where they are not there. `alone`: nobody
    else works on them.

    Raises: InputError where the database cannot be used; MissingExtra without Optuna.
    """
    check_extra()
    import optuna
    from optuna.storages import RDBStorage

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    how: dict[str, Any] = {"timeout": _TIMEOUT, **({"factory": _Journalled} if alone else {})}
    more = {"connect_args": how} if url.startswith("sqlite") else None
    beat: dict[str, Any] = {} if alone else {"heartbeat_interval": _BEAT, "grace_period": _STALE}
    left = 0 if alone else _OPENINGS
    while True:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # heartbeats
                storage = RDBStorage(url, engine_kwargs=more, **beat)
            if more and not alone:
                _one_at_a_time(storage.engine)
            return [
                optuna.create_study(storage=storage, study_name=name, direction=way, load_if_exists=True)
                for name, way in wanted
            ]
        except Exception as error:  # of SQLAlchemy or a driver: they share no class
            if left == 0:
                reason = str(error).strip().splitlines()[0]
                raise InputError(f"the database of the search cannot be used: {reason}") from None
        left -= 1
        time.sleep(_WAIT / 2)


def others_like(study: "Study", prefix: str) -> "list[Study]":
    """All studies of the same database whose names begin so."""
    import optuna

    storage = study._storage  # Optuna has no public name for it
    names = [name for name in optuna.get_all_study_names(storage) if name.startswith(prefix)]
    return [optuna.load_study(study_name=name, storage=storage) for name in names]


def draws(study: "Study") -> int:
    """Trials that ended, refused ones included, or are under way; what a dead worker left, until it is given up."""
    return sum(trial.state.name in ("COMPLETE", "PRUNED", "RUNNING") for trial in study.get_trials(deepcopy=False))


def say_alive(study: "Study", trial: "Trial") -> None:
    """At once: Optuna's thread says it some time after the trial began, and never gives up whom it did not hear."""
    study._storage.record_heartbeat(trial._trial_id)  # type: ignore[attr-defined]


def wait_for(study: "Study") -> None:
    """Until nobody is at it. Whoever is silent for long is given up."""
    from optuna.exceptions import ExperimentalWarning
    from optuna.storages import fail_stale_trials

    while any(trial.state.name == "RUNNING" for trial in study.get_trials(deepcopy=False)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            fail_stale_trials(study)
        time.sleep(_WAIT)


def give_up(study: "Study") -> None:
    """What was under way when the run was killed is done again: drawn by the same seed, or asked for."""
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False):
        if trial.state == TrialState.RUNNING:
            study.tell(trial.number, state=TrialState.FAIL)


def _one_at_a_time(engine: Any) -> None:
    """SQLite's transactions with the lock from their beginning: else two workers read that a trial waits, and both
    take it, for SQLite knows no SELECT … FOR UPDATE.
    """
    from sqlalchemy import event

    def connected(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None  # Python begins none by itself then

    def began(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", began)
    engine.dispose()  # what is open was opened before


class _Journalled(sqlite3.Connection):
    """One process's file, whose every commit need not wait for the disk: a killed process loses nothing by that."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")
