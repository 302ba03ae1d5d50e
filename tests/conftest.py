"""Fixtures of the whole test tree: one real S3 server a session."""

from s3server import bucket, s3

__all__ = ["bucket", "s3"]
