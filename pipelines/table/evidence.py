"""The traces of something destroyed that can be seen today."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Evidence:
    """what: the destroyed thing. record: notes made when it went. statements: checks that hold.
    failures: checks that do not.
    """

    dest: str
    what: str
    record: Mapping[str, str] = field(default_factory=dict)
    statements: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        return not self.failures

    def found(self, facts: Iterable[tuple[str, bool]]) -> Evidence:
        """The same with more checks, each with whether it holds."""
        facts = list(facts)
        return replace(
            self,
            statements=(*self.statements, *(what for what, is_so in facts if is_so)),
            failures=(*self.failures, *(f"not so: {what}" for what, is_so in facts if not is_so)),
        )
