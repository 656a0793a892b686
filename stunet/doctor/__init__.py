"""Examines an installation, its devices and a working directory, and says what is wrong."""
