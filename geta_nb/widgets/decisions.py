"""What was decided for one network: its budget, the budgets before and after it, and budgets under names; shared by all its widgets.

Comes in: a budget, set in any widget of the network. Goes out: the same budget in all others, wherever they stand. Kept as long as the
network lives; keeps neither the network nor a widget alive.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from geta_nb.budget import Budget
from geta_nb.errors import ConfigError, GetaError
from geta_nb.widgets.budget_lock import check_budget_is_free

if TYPE_CHECKING:
    from geta_nb.cost import Preview

MOST_STEPS = 200
"""Budgets that an undo can go back to."""
LONGEST_NAME = 40


class Decisions:
    """The one state of all widgets of a network.

    Attributes:
        budget: the present one. To change it set the ``budget`` of a widget, which checks it first.
        started: the last budget that a widget was made with.
        named: name -> budget, in the order in which they were kept.
    """

    def __init__(self) -> None:
        self.budget = self.started = Budget()
        self.named: dict[str, Budget] = {}
        self._undo: list[Budget] = []
        self._redo: list[Budget] = []
        self._members: weakref.WeakSet[Any] = weakref.WeakSet()
        self._lock = threading.RLock()  # the page may speak in a thread of its own
        self._spreading = self._stepping = False
        self._priced: dict[int, tuple[Budget, Preview]] = {}
        self._act: object = None  # what the hand does now
        self._last_act: object = None  # what it did when the last step was made

    # -- widgets --------------------------------------------------------------------------------------------------------------------

    def first(self, geta: object, budget: Budget | None, who: str) -> Budget:
        """Return the budget that a new widget begins with: its own, else the present one.

        Raises:
            RunStateError: another one than the present one while a run trains the network.
        """
        if budget is not None and budget != self.budget:
            check_budget_is_free(geta, who)
        return self.budget if budget is None else budget

    def join(self, widget: Any, budget: Budget | None = None) -> None:
        """Let a widget with a trait ``budget`` take part; the ``budget`` it was made with, if any, becomes that of all.

        Raises:
            GetaError: another widget shows that the network cannot meet it; the new one is closed.
        """
        with self._lock:
            self._members.add(widget)
            widget.observe(self._heard, "budget")
            try:
                self._change(widget.budget, widget)
            except GetaError:
                widget.unobserve(self._heard, "budget")
                self._members.discard(widget)
                widget.close()
                raise
            if budget is not None:
                self.started = budget

    def rejoin(self, widget: Any) -> None:
        """Give a widget that was closed, and is open again, what it has missed; where a run holds its budget, it says so."""
        with self._lock:
            self._spreading = True
            try:
                widget.budget = self.budget
            except GetaError as error:
                if hasattr(widget, "refuse"):
                    widget.refuse(error)
            finally:
                self._spreading = False
        self._tell()

    @property
    def members(self) -> list[Any]:
        """The widgets that take part and are not closed."""
        return [widget for widget in self._members if widget.comm is not None]

    def _heard(self, change: Any) -> None:
        with self._lock:
            if not self._spreading:
                self._change(change["new"], change["owner"])

    def _change(self, budget: Budget, owner: Any) -> None:
        """Make this the budget of all members; where one refuses it, all keep what they had."""
        if budget == self.budget:
            owner.budget = self.budget
            return
        self._spreading = True
        if hasattr(owner, "preview"):
            self._priced[id(owner.sensitivity)] = (budget, owner.preview)
        try:
            self._give(budget)
        except GetaError as error:
            self._give(self.budget)
            for member in self.members:
                if hasattr(member, "refuse"):
                    member.refuse(error)
            raise
        finally:
            self._spreading = False
            self._priced.clear()
        self._record(budget)
        self.budget = budget
        self._tell()

    def _give(self, budget: Budget) -> None:
        for member in self.members:
            member.budget = budget

    def _tell(self) -> None:
        for member in self.members:
            if hasattr(member, "decided"):
                member.decided()

    def priced(self, budget: Budget, sensitivity: object, price: Callable[[], Preview]) -> Preview:
        """Return ``price()``, worked out once for all widgets that the same change reaches."""
        if not self._spreading:
            return price()
        known = self._priced.get(id(sensitivity))
        if known is None or known[0] != budget:
            known = self._priced[id(sensitivity)] = (budget, price())
        return known[1]

    # -- steps ----------------------------------------------------------------------------------------------------------------------

    @contextmanager
    def during(self, act: object) -> Iterator[None]:
        """Changes made in here belong to ``act``: those of one act, as of one drag of a slider, are one step; None: each is its own."""
        with self._lock:
            before, self._act = self._act, act
            try:
                yield
            finally:
                self._act = before

    def _record(self, budget: Budget) -> None:
        if self._stepping:
            return
        if self._act is None or self._act != self._last_act or not self._undo:
            self._undo.append(self.budget)
            del self._undo[:-MOST_STEPS]
        self._last_act = self._act
        self._redo.clear()
        if self._undo[-1] == budget:  # the hand came back to where it began
            self._undo.pop()
            self._last_act = None

    @property
    def before(self) -> Budget | None:
        """What :meth:`undo` goes back to."""
        return self._undo[-1] if self._undo else None

    @property
    def after(self) -> Budget | None:
        """What :meth:`redo` goes forward to."""
        return self._redo[-1] if self._redo else None

    def undo(self, widget: Any) -> bool:
        """Go back one step, by way of a widget, which checks it; False where there is none."""
        return self._step(self._undo, self._redo, widget)

    def redo(self, widget: Any) -> bool:
        """Take back one :meth:`undo`; False where there is none."""
        return self._step(self._redo, self._undo, widget)

    def _step(self, source: list[Budget], other: list[Budget], widget: Any) -> bool:
        with self._lock:
            if not source:
                return False
            present = self.budget
            self._stepping = True
            try:
                widget.budget = source[-1]
            finally:
                self._stepping = False
            source.pop()
            other.append(present)
            self._last_act = None
        self._tell()
        return True

    # -- names ----------------------------------------------------------------------------------------------------------------------

    @property
    def free_name(self) -> str:
        """The first of A, B, C ... that is not used."""
        letters = [chr(ord("A") + i) for i in range(26)]
        names = letters + [f"{letter}{i}" for i in range(2, len(self.named) + 3) for letter in letters]
        return next(name for name in names if name not in self.named)

    def keep(self, name: str, budget: Budget) -> None:
        """Keep a budget under a name; one that has the name already is replaced."""
        with self._lock:
            self.named[check_name(name)] = budget
        self._tell()

    def find(self, name: str) -> Budget:
        """Return the budget of that name."""
        if name not in self.named:
            known = ", ".join(map(repr, self.named)) or "none is kept"
            raise ConfigError("BudgetPanel: no budget of that name.", expected=known, got=repr(name), hint='panel.keep("A")')
        return self.named[name]

    def forget(self, name: str) -> None:
        """Drop a name."""
        self.find(name)
        with self._lock:
            self.named.pop(name, None)
        self._tell()

    def keep_all(self, named: dict[str, Budget]) -> None:
        """Keep all of these; names that are not among them stay."""
        with self._lock:
            self.named |= named
        self._tell()


def check_name(name: object) -> str:
    """Return the name, blanks around it cut off.

    Raises:
        ConfigError: no name, or one that no column has room for.
    """
    text = name.strip() if isinstance(name, str) else ""
    if not text or len(text) > LONGEST_NAME or not text.isprintable():
        expected = f"1 to {LONGEST_NAME} printable characters"
        raise ConfigError("BudgetPanel: not a name for a budget.", expected=expected, got=repr(name)[:80], hint='panel.keep("A")')
    return text


_ALL: weakref.WeakKeyDictionary[Any, Decisions] = weakref.WeakKeyDictionary()
_ONE_AT_A_TIME = threading.Lock()


def decisions_of(geta: object) -> Decisions:
    """Return what was decided for this network; the same for all who ask."""
    with _ONE_AT_A_TIME:
        found = _ALL.get(geta)
        if found is None:
            found = _ALL[geta] = Decisions()
    return found
