"""Planning: the memory and time that a run needs, on chips that need not be here."""
