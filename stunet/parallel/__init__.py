"""Splits a run over devices and hosts: the mesh, and the table that maps logical axes to it."""
