"""Which clips are copies, which are about the same thing, and how many of them to keep."""
