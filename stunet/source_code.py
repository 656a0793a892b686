"""Tells which version of stunet's source runs."""

import pathlib
import subprocess

import stunet


def commit() -> str | None:
    """Returns the git commit of stunet's source, or None if git does not track the source."""
    package = pathlib.Path(stunet.__file__).parent

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(package), *words], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")
        changed = git("status", "--porcelain", "--untracked-files=no", ".")
        return git("rev-parse", "--short=12", "HEAD") + (" and changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None
