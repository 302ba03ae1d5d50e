"""The short versions of the suites sync no file in this process; processes that are killed do."""

from support.disk import unsynced

__all__ = ["unsynced"]
