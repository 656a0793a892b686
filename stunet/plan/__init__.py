"""What a run needs on machines that are not here, found out by compiling it for them."""
