"""Writes labelled films for the six negative tags, to train and to check the embedded classifiers with.

`python -m benchmarks.tag_films --out DIR [--each 30] [--clean 70] [--seed 0]`

Then: `vidcurate run DIR --out OUT --recipe cogvideox --measure-all` and
`vidcurate tags fit DIR/labels.csv --manifest OUT --out tags.json`.
"""

from __future__ import annotations

import argparse

from manifests.films.tagged import tagged_films, write_tagged


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="folder to write; films that are there already are kept")
    parser.add_argument("--each", type=int, default=30, help="films per tag")
    parser.add_argument("--clean", type=int, default=70, help="films without a tag")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print(write_tagged(given.out, tagged_films(given.each, given.clean, given.seed)))


if __name__ == "__main__":
    main()
