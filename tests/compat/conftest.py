"""Tables of earlier releases are read in this process, which syncs no file."""

from support.disk import unsynced

__all__ = ["unsynced"]
