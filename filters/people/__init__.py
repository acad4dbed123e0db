"""Who is to be seen and heard: persons, faces, voices, and how large the main thing in the picture is."""
