"""What can be seen today of something that was destroyed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Evidence:
    """what: that which is gone. record: what was written down when it went. statements: what was
    looked for and is so; failures: what speaks against it.
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
        """The same with more that was looked for, each with whether it is so."""
        facts = list(facts)
        return replace(
            self,
            statements=(*self.statements, *(what for what, is_so in facts if is_so)),
            failures=(*self.failures, *(f"not so: {what}" for what, is_so in facts if not is_so)),
        )
