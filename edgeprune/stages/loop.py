"""The closed loop: plan, compile, time on the device, correct the budget, plan again."""

import math
from dataclasses import dataclass

from edgeprune import console
from edgeprune.errors import InfeasibleTarget, StructureError
from edgeprune.latency.measure import Measurement
from edgeprune.latency.model import LatencyModel
from edgeprune.recipe import SearchRecipe
from edgeprune.request import Goal
from edgeprune.search.joint import JointProblem
from edgeprune.stages.allocate import Allocated, LossLog, allocate, exact
from edgeprune.stages.trial import AIM, RESERVE, Trial, Trials, limit_ms

Levels = dict[str, int]

# A correction is a small step from a plan whose neighbourhood is known already.
_CORRECTION_EVALUATIONS = 24
# A correction after a miss asks for at least this much less.
_UNDER_MISSED = 0.995


@dataclass(frozen=True)
class Closed:
    """Where the loop ended: the plan, what the table said, and every trial on the way."""

    allocated: Allocated
    predicted_ms: float
    met: bool
    trials: tuple[Trial, ...]


class Loop:
    """The closed loop for one goal."""

    def __init__(
        self,
        goal: Goal,
        recipe: SearchRecipe,
        latency: LatencyModel,
        problem: JointProblem,
        log: LossLog,
        trials: Trials,
    ) -> None:
        self.goal, self.recipe = goal, recipe
        self.latency, self.problem = latency, problem
        self.log, self.trials = log, trials
        self._corrections = recipe.replans
        # Summed layer times of the slowest plan that was met, and of the fastest that missed.
        self._met_ms, self._missed_ms = 0.0, math.inf

    def close(self) -> Closed:
        """Plan until a measurement says met, or the recipe's corrections are used up.

        Raises:
            InfeasibleTarget: Even the fastest plan is predicted too slow.
        """
        budget = self._budget(self._probe())
        closed = self._settle(allocate(self.problem, budget, self.recipe, self.log))
        while (final := self.trials.kept_final()) is not None:
            closed = self._planned_again(closed, final)
        return closed

    def reopen(self, closed: Closed, measurement: Measurement, name: str) -> Closed:
        """Plan again after the finished artifact missed; the same plan when no correction is left.

        Args:
            closed: What the artifact was made from.
            measurement: Of the artifact and the dense model.
            name: The artifact's name in it.
        """
        if not self._corrections:
            return closed
        trial = self.trials.of_final(closed.allocated.levels, measurement, name)
        console.message(f"{self.goal}: the finished model missed, planning again")
        return self._planned_again(closed, trial)

    def _planned_again(self, closed: Closed, trial: Trial) -> Closed:
        corrected = self._corrected(trial, closed.allocated.levels)
        return closed if corrected is None else self._settle(corrected)

    def _settle(self, allocated: Allocated) -> Closed:
        """Time a plan and its corrections until one is met and hardly faster than it has to be."""
        met: list[tuple[bool, Allocated]] = []
        while True:
            trial = self.trials.of(allocated.levels)
            secure = trial.meets(self.goal, RESERVE)
            if trial.meets(self.goal):
                met.append((secure, allocated))
            self._tell(trial, allocated)
            # On a busy machine every plan looks too fast beside a dense model that suffers more.
            quiet_limit = limit_ms(self.goal, self.trials.quietest_ms)
            close_enough = trial.median > (1 - 2 * self.recipe.tolerance) * quiet_limit
            if (secure and close_enough) or not self._corrections:
                break
            corrected = self._corrected(trial, allocated.levels)
            if corrected is None or corrected.levels == allocated.levels:
                break
            allocated = corrected
        best = min(met, key=lambda found: (not found[0], found[1].loss), default=None)
        final = best[1] if best else allocated
        predicted = self.latency.total_ms(final.levels)
        return Closed(final, predicted, best is not None, tuple(self.trials.taken))

    def _tell(self, trial: Trial, allocated: Allocated) -> None:
        limit = limit_ms(self.goal, trial.dense)
        if trial.meets(self.goal, RESERVE):
            verdict = "met"
        else:
            verdict = "met with little to spare" if trial.meets(self.goal) else "missed"
        console.message(
            f"{self.goal}: measured {trial.median:.3f} ms, wanted {limit:.3f} ms "
            f"({verdict}; output error {allocated.loss:.4f})"
        )

    def _probe(self) -> float:
        """Measured over predicted for a first plan, before anything expensive is done."""
        solution = exact(self.problem, self._budget(1.0), self.recipe)
        try:
            trial = self.trials.of(solution.levels, probe=True)
        except StructureError:
            return 1.0  # possible one by one, not together; the joint search finds another
        return self._bias(trial, solution.levels)

    def _bias(self, trial: Trial, levels: Levels) -> float:
        """Measured over predicted."""
        # A speed-up is judged against the dense model of the same measurement, so only the
        # ratio has to be right.
        scale = self.latency.dense_ms / trial.dense if self.goal.kind == "speedup" else 1.0
        return trial.median * scale / self.latency.total_ms(levels)

    def _budget(self, bias: float) -> float:
        """The budget of summed layer times for a bias of measured over predicted.

        Raises:
            InfeasibleTarget: The budget is below the fastest plan.
        """
        wanted = limit_ms(self.goal, self.latency.dense_ms)
        fastest = self.latency.fastest_ms
        if wanted / bias < fastest:
            raise InfeasibleTarget(
                f"target {self.goal} is out of reach: it needs {wanted:.3f} ms, the fastest plan "
                f"takes {fastest * bias:.3f} ms; ask for more than that"
            )
        return self.latency.sum_budget(max(AIM * wanted / bias, fastest))

    def _corrected(self, trial: Trial, levels: Levels) -> Allocated | None:
        """The best plan under the budget that a trial calls for, knowing all that was evaluated.

        None where no plan is that fast: what was found so far is reported with its miss then, not
        thrown away.
        """
        self._corrections -= 1
        _, planned_ms = self.problem.evaluate(levels)
        if trial.meets(self.goal, RESERVE):
            self._met_ms = max(self._met_ms, planned_ms)
        else:
            self._missed_ms = min(self._missed_ms, planned_ms)
        try:
            budget = self._budget(self._bias(trial, levels))
            if self._met_ms < self._missed_ms:
                # Trials disagree by some percent, and would have the plan jump to and fro.
                budget = max(self._met_ms, min(budget, _UNDER_MISSED * self._missed_ms))
            return allocate(
                self.problem,
                budget,
                self.recipe,
                self.log,
                evaluations=_CORRECTION_EVALUATIONS,
                known=self._known_within(budget),
            )
        except InfeasibleTarget as error:
            console.warning(f"{error}; keeping the best plan so far")
            return None

    def _known_within(self, budget_ms: float) -> list[tuple[Levels, float]]:
        """The plans evaluated so far that fit a budget, with their joint losses."""
        known = ((parse_levels(key), loss) for key, loss in self.log.asked.items())
        names = self.problem.pairwise.index.keys()
        return [
            (levels, loss)
            for levels, loss in known
            if levels.keys() == names and self.problem.evaluate(levels)[1] <= budget_ms
        ]


def parse_levels(key: str) -> Levels:
    """The levels that ``Candidates.key`` wrote."""
    pairs = (part.rsplit("=", 1) for part in key.split(","))
    return {name: int(level) for name, level in pairs}
