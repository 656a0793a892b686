"""The page of `stunet demo`: a form for each task of `stunet sample`, in a browser."""
