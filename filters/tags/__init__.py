"""The six negative tags: the evidence that only they use, the classifiers, and how these are trained."""
