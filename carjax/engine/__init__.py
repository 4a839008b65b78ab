"""Scoring without end: many sources, on one device or a cluster; resumable, in constant memory.

`run.score_sources` plans a run, lets an engine (`local`, `on_ray`) score what is left to do, and
writes parts, errors and the manifest.
"""
