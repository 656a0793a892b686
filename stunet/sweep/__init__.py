"""Several runs of one question: named configs, run as processes of this machine."""
