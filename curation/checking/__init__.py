"""DSG-Video over a folder: captions held against frames, repaired if asked for, compared."""
