"""What a video and a clip are, where they are kept, and how their pixels are read.

This package knows numpy, pyarrow, OpenCV, PyAV and fsspec; it imports neither Dask nor torch.
"""
