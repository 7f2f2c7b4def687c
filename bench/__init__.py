"""Benchmarks: what undertow takes, beside a stated baseline in the same run.

`python -m bench [NAME...] [--json]` from the root of the repository. They are not timed tests:
machines differ and are shared, so read the ratios first and the seconds second.
"""
