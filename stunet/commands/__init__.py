"""The commands of `stunet`: one file each, with its arguments beside what it calls."""
