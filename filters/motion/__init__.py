"""How much moves, what the camera does, and whether a clip is a film at all or a row of stills."""
