"""Set-up that every command needs before it uses JAX."""

from stunet.files import user_cache


def set_up_jax() -> None:
    """Silences the logs of libraries, and keeps compiled programs between runs.

    Programs are kept in the user's cache unless JAX_COMPILATION_CACHE_DIR names another directory.
    """
    import jax
    from absl import logging

    # Orbax and grain log their routine through absl. What goes wrong reaches the user as an
    # exception.
    logging.set_verbosity(logging.FATAL)

    if not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(user_cache("xla")))
