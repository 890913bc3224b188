"""Which plan meets a budget at the best score: many are looked at cheaply, the most promising are tried in full."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from affinage.compression.budget import Budget
from affinage.compression.estimates import SLACK, Glance, refuse_unreachable, worst_share
from affinage.compression.plan import Plan
from affinage.compression.space import Slots, plan_of, starts
from affinage.compression.studies import draws, give_up, open_studies, others_like, say_alive, wait_for
from affinage.errors import InputError
from affinage.report.frontier import Variant

log = logging.getLogger(__name__)

_DRAWS = 6
"""draws for each plan that is looked at, at most: some choices do not go together"""


@dataclass(frozen=True)
class Means:
    """What a search is run with; `workflows` wires it."""

    glance: Callable[[Plan], Glance]
    """applies the steps without training. Raises: InputError where one does not fit the model"""
    tried: Callable[[Plan], Variant]
    """applies and recovers, measures latency, size and memory, scores on the valid part; takes up what was begun"""


@dataclass(frozen=True)
class Effort:
    """How much is tried."""

    tries: int = 48
    """plans looked at"""
    finalists: int = 8
    """of them, tried in full"""


@dataclass(frozen=True)
class Found:
    """What a search found."""

    tried: tuple[tuple[Plan, Variant], ...]
    """in full, in the order in which they were chosen"""
    looked_at: int
    """plans"""


class Search:
    """One worker of a search, whose state is in a database: what ended is not done again, by whomever it was done."""

    def __init__(
        self, url: str, name: str, *, budget: Budget, slots: Slots, base: Plan, means: Means, alone: bool
    ) -> None:
        """`url`: of the database. `name`: of the search, the same for all workers. `alone`: nobody else works on it.

        What is looked at is drawn for a budget; what is known of a plan serves every budget.

        Raises: InputError where the database cannot be used; MissingExtra without Optuna.
        """
        studies = open_studies(
            url, [(f"{name} looked at, {budget}", "minimize"), (f"{name} in full", "maximize")], alone=alone
        )
        self._looked, self._full = studies
        self._slots, self._base, self._means, self._alone = slots, base, means, alone
        self._budget = budget
        self._seen: dict[str, tuple[Plan, Glance]] = {}
        self._read: set[int] = set()
        self._known = {
            sha256: glance
            for study in others_like(self._looked, f"{name} looked at,")
            for sha256, (_, glance) in _glances(study).items()
        }
        """of a search with another budget"""
        if alone:  # whoever was at it is dead
            for study in studies:
                give_up(study)

    def run(self, effort: Effort, *, uncompressed: Mapping[str, float], seed: int) -> Found:
        """Look, choose, try. `uncompressed`: size and memory in bytes, latency in ms.

        Raises: InputError where no plan that was looked at comes near the budget: the nearest is named.
        """
        budget = self._budget
        self._look(budget, effort, uncompressed, seed)
        self._refuse_unreachable(budget, uncompressed)
        chosen = self._chosen(budget, effort, uncompressed)
        while self._ask_for(chosen):
            self._try()
        results = self._results()
        order = [plan.sha256 for plan in chosen]
        known = sorted(results, key=lambda pair: order.index(pair[0].sha256) if pair[0].sha256 in order else len(order))
        return Found(tuple(known), len(self._glances()))

    # -- looking -------------------------------------------------------------------------------------------------------

    def _look(self, budget: Budget, effort: Effort, uncompressed: Mapping[str, float], seed: int) -> None:
        from optuna.samplers import TPESampler
        from optuna.trial import Trial

        def objective(trial: Trial) -> float:
            if not self._alone:
                say_alive(self._looked, trial)
            found = self._glance(trial)
            trial.set_constraint("budget", worst_share(budget, found, uncompressed) - 1)
            return found.loss

        for _ in range(_DRAWS * effort.tries):
            if len(self._glances()) >= effort.tries:
                break
            self._ask_for_starts()
            # One seed a draw: a run that was killed draws on as if it had not been, and workers draw unlike plans.
            self._looked.sampler = TPESampler(seed=(seed * 100_003 + draws(self._looked)) % 2**32)
            self._looked.optimize(objective, n_trials=1)
        if not self._alone:
            wait_for(self._looked)

    def _ask_for_starts(self) -> None:
        """Enqueue the first of the given choices that nobody has looked at, or is about to."""
        trials = self._looked.get_trials(deepcopy=False)
        seen = [t.system_attrs.get("fixed_params") for t in trials if t.state.name != "FAIL"]
        missing = next((choices for choices in starts(self._slots) if choices not in seen), None)
        if missing is not None:
            self._looked.enqueue_trial(missing)

    def _glance(self, trial: Any) -> Glance:
        from optuna.exceptions import TrialPruned

        choices = {slot: trial.suggest_categorical(slot, known) for slot, known in self._slots.items()}
        try:
            plan = plan_of(choices, self._slots, self._base)
            if plan is None:
                raise InputError("it does nothing")
            if plan.sha256 in self._glances():
                raise InputError("it was looked at already")
            found = self._known.get(plan.sha256)
            if found is None or (found.memory_bytes is None and self._budget.asks_for("memory")):
                found = self._means.glance(plan)
        except InputError as error:
            trial.set_user_attr("refused", str(error))
            raise TrialPruned from None
        trial.set_user_attr("plan", plan.model_dump(mode="json"))
        trial.set_user_attr("glance", asdict(found))
        log.info("looked at %s: %.2f MB, loss %.4f", plan.title, found.size_bytes / 1e6, found.loss)
        return found

    def _glances(self) -> dict[str, tuple[Plan, Glance]]:
        for trial in self._looked.get_trials(deepcopy=False):
            if trial.number in self._read or not trial.state.is_finished():
                continue  # whoever is at it may be slow, or dead
            self._read.add(trial.number)
            if "glance" in trial.user_attrs:
                plan = Plan.of(trial.user_attrs["plan"])
                self._seen.setdefault(plan.sha256, (plan, Glance(**trial.user_attrs["glance"])))
        return self._seen

    # -- choosing ------------------------------------------------------------------------------------------------------

    def _chosen(self, budget: Budget, effort: Effort, uncompressed: Mapping[str, float]) -> list[Plan]:
        """Three quarters: of the least loss within the budget, as far as one can tell. The rest: of the least loss at
        ever lower cost, for the frontier. Where few are within, the nearest.
        """
        known = [(plan, glance, worst_share(budget, glance, uncompressed)) for plan, glance in self._glances().values()]
        known.sort(key=lambda one: (one[1].loss, one[0].sha256))
        within = [plan for plan, _, worst in known if worst <= SLACK]
        best: list[Plan] = within[: max(1, effort.finalists * 3 // 4)]
        for plan, _, worst in sorted(known, key=lambda one: (one[2], one[0].sha256)):
            better = all(g.loss > self._glances()[plan.sha256][1].loss for p, g, w in known if p != plan and w <= worst)
            if better and plan not in best and len(best) < effort.finalists:
                best.append(plan)
        for plan, _, _ in sorted(known, key=lambda one: (max(one[2], 1.0), one[1].loss, one[0].sha256)):
            if plan not in best and len(best) < effort.finalists:
                best.append(plan)
        return best

    def _refuse_unreachable(self, budget: Budget, uncompressed: Mapping[str, float]) -> None:
        known = list(self._glances().values())
        if not known:
            said = {t.user_attrs.get("refused") for t in self._looked.get_trials(deepcopy=False)} - {None}
            raise InputError("no method of the search fits this model:\n  " + "\n  ".join(sorted(map(str, said))[:5]))
        refuse_unreachable(budget, known, uncompressed)

    # -- trying --------------------------------------------------------------------------------------------------------

    def _ask_for(self, chosen: Sequence[Plan]) -> bool:
        """Enqueue what nobody has tried, or is at. Whether anything is left to be tried, by whomever."""
        trials = self._full.get_trials(deepcopy=False)
        ended = {t.user_attrs["sha256"] for t in trials if {"variant", "refused"} & t.user_attrs.keys()}
        begun = {t.user_attrs.get("sha256") for t in trials if t.state.name in ("WAITING", "RUNNING")}
        for plan in chosen:
            if plan.sha256 not in ended | begun:
                told = {"plan": plan.model_dump(mode="json"), "sha256": plan.sha256}
                self._full.enqueue_trial({}, user_attrs=told)
        return not {plan.sha256 for plan in chosen} <= ended

    def _try(self) -> None:
        from optuna.exceptions import TrialPruned
        from optuna.trial import Trial

        def objective(trial: Trial) -> float:
            if not self._alone:
                say_alive(self._full, trial)
            told, others = trial.user_attrs, self._full.get_trials(deepcopy=False)[: trial.number]
            if "plan" not in told or any(
                other.user_attrs.get("sha256") == told["sha256"] and other.state.name in ("RUNNING", "COMPLETE")
                for other in others
            ):
                raise TrialPruned  # another worker was quicker
            plan = Plan.of(told["plan"])
            log.info("trying %s", plan.title)
            try:
                found = self._means.tried(plan)
            except InputError as error:
                log.warning("%s cannot be tried: %s", plan.title, error)
                trial.set_user_attr("refused", str(error))
                raise TrialPruned from None
            trial.set_user_attr("variant", found.model_dump(mode="json"))
            return found.score

        while self._waiting():
            self._full.optimize(objective, n_trials=1)
        if not self._alone:
            wait_for(self._full)

    def _waiting(self) -> bool:
        return any(trial.state.name == "WAITING" for trial in self._full.get_trials(deepcopy=False))

    def _results(self) -> list[tuple[Plan, Variant]]:
        found: dict[str, tuple[Plan, Variant]] = {}
        for trial in self._full.get_trials(deepcopy=False):
            if "variant" in trial.user_attrs and trial.state.name == "COMPLETE":
                plan = Plan.of(trial.user_attrs["plan"])
                found.setdefault(plan.sha256, (plan, Variant.model_validate(trial.user_attrs["variant"])))
        return list(found.values())


def best_within(found: Sequence[tuple[Plan, Variant]]) -> tuple[Plan, Variant] | None:
    """The best score of those that meet the budget; of equals, the smaller."""
    within = [pair for pair in found if pair[1].within]
    return min(within, key=lambda pair: (-pair[1].score, pair[1].size_bytes, pair[0].sha256), default=None)


def _glances(study: Any) -> dict[str, tuple[Plan, Glance]]:
    """sha256 of a plan -> what is known of it."""
    found: dict[str, tuple[Plan, Glance]] = {}
    for trial in study.get_trials(deepcopy=False):
        if "glance" in trial.user_attrs and trial.state.is_finished():
            plan = Plan.of(trial.user_attrs["plan"])
            found.setdefault(plan.sha256, (plan, Glance(**trial.user_attrs["glance"])))
    return found
