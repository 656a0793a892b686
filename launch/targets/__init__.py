"""Where a job can be submitted: each module says what it needs to know, and writes a script."""
