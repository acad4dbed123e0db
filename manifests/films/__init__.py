"""Synthetic films with known truth: cuts, fades, camera moves over real photographs, text, defects and copies.

They feed the demo, the tests and the benchmarks, so that none of these needs footage from elsewhere.
"""
