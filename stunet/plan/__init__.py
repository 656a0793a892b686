"""What a run needs, on machines that need not be here, found out by compiling it for them."""
