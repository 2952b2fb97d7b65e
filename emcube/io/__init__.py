"""Readers: instrument files and plain arrays, as lazy labelled cubes.

``em.open`` and ``em.ingest`` (`emcube.sources`) are what users call; `emcube.io.readers` holds the table of
formats, and a new format is one function and one row of it.
"""
