"""Fixtures of the whole test tree: one real S3 server a session."""

from hypothesis import settings
from support.s3 import bucket, s3

__all__ = ["bucket", "s3"]

# How long an example takes depends on how busy the machine is.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
