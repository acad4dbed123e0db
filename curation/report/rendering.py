"""What all pages are rendered with."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader

from manifests.media.container import base_name


def environment() -> Environment:
    """Templates of this package, with filters for names, times and numbers; all text is escaped."""
    made = Environment(loader=PackageLoader("curation.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    made.filters["name"] = base_name
    made.filters["clock"] = lambda us: f"{us // 60_000_000}:{us / 1e6 % 60:04.1f}" if us >= 6e7 else f"{us / 1e6:.1f} s"
    made.filters["short"] = lambda v: f"{v:.3g}"
    made.filters["lasting"] = lambda hours: (
        f"{hours:,.0f} h" if hours >= 10 else f"{hours:.2f} h" if hours >= 1 else f"{60 * hours:.1f} min"
    )
    return made
