"""Arithmetic on one block of pixels: functions of arrays, without labels, Dask or files."""
