"""`python -m curation` is `vidcurate`."""

from curation.cli import main

if __name__ == "__main__":
    main()
