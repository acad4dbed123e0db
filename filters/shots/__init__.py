"""Where shots begin and end: hard cuts, fades, dissolves, wipes and pushes, and what proposes them."""
