"""Imported by the process that workers are forked from, after all else that they need.

Modules hold hundreds of thousands of objects, for as long as the process lives. Frozen, they are passed over by
Python's collector of cyclic garbage, which would walk through them again and again, and all workers share their memory.
"""

from __future__ import annotations

import gc

gc.collect()
gc.freeze()
