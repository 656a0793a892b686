"""Directories in buckets of object stores, gs:// and s3://.

Every directory in a bucket has a copy on this machine, in the user's cache. The rest of stunet
reads and writes the copy, and this room keeps both alike. Only checkpoints in gs:// have no copy:
Orbax reads and writes them in the bucket.
"""
