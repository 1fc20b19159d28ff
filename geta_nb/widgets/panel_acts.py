"""What a budget panel does besides following its form: go back and forth, keep budgets under names, write them to a file or a cell.

Comes in: a click in the page, or a call. Goes out: a change of the network's :class:`~geta_nb.widgets.decisions.Decisions`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import traitlets

from geta_nb.budget import Budget
from geta_nb.errors import ConfigError, GetaError, RunStateError
from geta_nb.widgets.budget_code import budget_code, form_of
from geta_nb.widgets.budget_lock import check_budget_is_free
from geta_nb.widgets.decisions_file import read_budgets, write_budgets

if TYPE_CHECKING:
    from geta_nb.cost import Preview
    from geta_nb.geta import GETA
    from geta_nb.sensitivity import Sensitivity
    from geta_nb.widgets.decisions import Decisions

FIGURES = ("parameters", "size_bytes", "macs", "bops", "relative_bops")


class PanelActs(traitlets.HasTraits):
    """Mixin of :class:`~geta_nb.widgets.budget_panel.BudgetPanel`."""

    if TYPE_CHECKING:
        geta: GETA
        decisions: Decisions
        sensitivity: Sensitivity | None
        budget = traitlets.Instance(Budget)
        preview: Preview

        @property
        def code(self) -> str:
            """See the panel."""

        def refuse(self, error: GetaError) -> None:
            """See the panel."""

    steps = traitlets.Dict({"undo": "", "redo": ""}).tag(sync=True)
    columns = traitlets.List(traitlets.Dict()).tag(sync=True)
    _known: tuple[tuple[Budget, dict[str, Any]], ...] = ()  # what budgets that are kept cost, as this panel prices them

    def undo(self) -> Budget:
        """Go back to the budget before the last change, wherever that was made; returns the budget.

        Raises:
            RunStateError: a run trains this network.
        """
        self.decisions.undo(self)
        return self.budget

    def redo(self) -> Budget:
        """Take the last :meth:`undo` back; returns the budget."""
        self.decisions.redo(self)
        return self.budget

    @property
    def named(self) -> dict[str, Budget]:
        """The budgets that are kept, by name."""
        return dict(self.decisions.named)

    def keep(self, name: str | None = None) -> str:
        """Keep the present budget under a name, to be compared with others; returns the name.

        Args:
            name: None: the next free letter. A budget that has this name is replaced.

        Raises:
            ConfigError: not a name.
        """
        name = self.decisions.free_name if name is None else name
        self.decisions.keep(name, self.budget)
        return name.strip()

    def use(self, name: str) -> Budget:
        """Make the budget of this name the present one; returns it.

        Raises:
            ConfigError: there is none.
            RunStateError: a run trains this network.
        """
        self.budget = self.decisions.find(name)
        return self.budget

    def forget(self, name: str) -> None:
        """Drop a name; the present budget stays as it is.

        Raises:
            ConfigError: there is none.
        """
        self.decisions.forget(name)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the present budget and the named ones as JSON, whole or not at all; returns the path."""
        return write_budgets(path, self.budget, self.decisions.named)

    def load(self, path: str | os.PathLike[str]) -> Budget:
        """Take over what :meth:`save` wrote, for this network or another; returns the budget. Names that are in use are replaced.

        Raises:
            ArtifactError: a file that is missing, damaged, or not ours.
            BudgetError: a budget in it that this network cannot meet; nothing is taken over.
            RunStateError: a run trains this network.
        """
        budget, named = read_budgets(path)
        check_budget_is_free(self.geta, "BudgetPanel.load")
        for name, kept in named.items():
            try:
                self._price_of(kept)
            except GetaError as error:
                raise type(error)(
                    f"BudgetPanel.load: budget {name!r} does not fit this network.", at=path, expected=error.expected, got=error.got,
                    hint=error.hint,
                ) from error
        self.budget = budget
        self.decisions.keep_all(named)
        return self.budget

    def to_cell(self, name: str = "budget", *, replace: bool = False) -> None:
        """Write the budget into the notebook, as ``budget = gt.Budget(...)``: a new cell below the one that is running.

        Args:
            name: of the variable.
            replace: overwrite the cell that is running instead.

        Raises:
            ConfigError: not the name of a variable.
            RunStateError: this is no notebook.
        """
        if not isinstance(name, str) or not name.isidentifier():
            raise ConfigError("BudgetPanel.to_cell: not the name of a variable.", expected='"budget"', got=repr(name))
        from IPython.core.getipython import get_ipython

        shell = get_ipython()
        if shell is None:
            raise RunStateError("BudgetPanel.to_cell: there is no cell to write to.", expected="a notebook", hint="print(panel.code)")
        shell.set_next_input(f"{name} = {self.code}", replace=replace)

    # -- the page -------------------------------------------------------------------------------------------------------------------

    def decided(self) -> None:
        """Show what can be undone and which budgets have names."""
        before, after = self.decisions.before, self.decisions.after
        self.steps = {"undo": budget_code(before) if before else "", "redo": budget_code(after) if after else ""}
        self.columns = [self._column(name, budget) for name, budget in self.decisions.named.items()]

    def _column(self, name: str, budget: Budget) -> dict[str, Any]:
        return {"name": name, "form": form_of(budget), "code": budget_code(budget), **self._price_of(budget)}

    def _price_of(self, budget: Budget) -> dict[str, Any]:
        """What a budget costs, worked out once: it rests on the network and the budget alone."""
        for known, price in self._known:
            if known == budget:
                return price
        preview = self.preview if budget == self.budget else self.geta.preview(budget, sensitivity=self.sensitivity)
        price = {"totals": {name: getattr(preview, name) for name in FIGURES}}
        price |= {"group_sparsity": preview.group_sparsity, "rise": preview.predicted_rise}
        self._known = (*self._known, (budget, price))
        return price

    def handle(self, asked: Mapping[str, Any]) -> None:
        """Do what the page asks; what is wrong is said there, not raised."""
        acts: dict[str, Callable[[], object]] = {
            "undo": self.undo, "redo": self.redo, "keep": lambda: self.keep(asked.get("name") or None),
            "use": lambda: self.use(asked.get("name", "")), "forget": lambda: self.forget(asked.get("name", "")),
        }
        act = acts.get(str(asked.get("action")))
        if act is None:
            return
        try:
            act()
        except GetaError as error:
            self.refuse(error)
