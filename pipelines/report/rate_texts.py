"""Rates for people: with counts and intervals, or with a note that the errors are too few."""

from __future__ import annotations

from typing import Final

from ironmask.metrics import LEAST_ERRORS, Difference, Rate

NOT_SUPPORTED: Final = f"not supported: its threshold rests on fewer than {LEAST_ERRORS} impostors"


def rate_text(rate: Rate) -> str:
    """A rate with its counts and intervals, or the bound where it is not supported."""
    counts = f"{rate.errors:,} of {rate.trials:,}"
    if not rate.supported:
        return f"at most {rate.bound:.2g}, unsupported ({counts})"
    low, high = rate.interval.low, rate.interval.high
    boot = f"[{rate.bootstrap.low:.3g} to {rate.bootstrap.high:.3g}]"
    return f"{rate.value:.3g} ({low:.3g} to {high:.3g}) {boot}; {counts}"


def tar_text(fnmr: Rate) -> str:
    """TAR and its interval."""
    low, high = 1 - fnmr.interval.high, 1 - fnmr.interval.low
    return f"{1 - fnmr.value:.4f} ({low:.4f} to {high:.4f})"


def tar_percent(fnmr: Rate) -> str:
    """TAR and its interval in percent."""
    low, high = (100 * (1 - x) for x in (fnmr.interval.high, fnmr.interval.low))
    return f"{100 * (1 - fnmr.value):.1f} % ({low:.1f} to {high:.1f} %)"


def difference_text(found: Difference | None) -> str:
    """A difference of acceptance with its interval, or a note that none is supported."""
    if found is None:
        return "not supported"
    # A difference of accepts is that of false rejects with the other sign; zero has no minus.
    value, low, high = (0.0 - x for x in (found.value, found.interval.high, found.interval.low))
    return f"{value:+.4f} ({low:+.4f} to {high:+.4f})"


def chance_text(found: Difference | None) -> str:
    """The probability of so large a difference by chance."""
    if found is None:
        return ""
    return "< 0.0001" if found.p < 1e-4 else f"{found.p:.4f}"
