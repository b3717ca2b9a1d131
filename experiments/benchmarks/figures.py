"""The cost of an aggregation against the number of edges."""

import re
from pathlib import Path

from matplotlib.figure import Figure

SCALING = re.compile(r"scaling, (\d+) edges, ([\w-]+)")


def draw_scaling(rows: list[dict], path: Path) -> None:
    """Milliseconds, ours and the peer's, for each kind of graph; dotted: linear in the edges.

    Nothing is drawn where no such case has been recorded.
    """
    points: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for row in rows:
        if found := SCALING.fullmatch(row["case"]):
            edges, degrees = int(found[1]), found[2]
            points.setdefault(("structdl", degrees), []).append((edges, row["structdl_ms"]))
            points.setdefault((row["peer"], degrees), []).append((edges, row["peer_ms"]))
    if ("structdl", "regular") not in points:
        return
    figure = Figure(figsize=(6.5, 4.5), layout="constrained")
    axis = figure.subplots()
    for (side, degrees), each in sorted(points.items(), key=lambda item: item[0][0] != "structdl"):
        ours = side == "structdl"
        axis.loglog(
            *zip(*sorted(each), strict=True),
            marker="o",
            color="C0" if degrees == "regular" else "C1",
            linestyle="-" if ours else "--",
            markerfacecolor=None if ours else "white",
            label=f"{side}, {degrees}",
        )
    edges, milliseconds = min(points["structdl", "regular"])
    ends = (edges, 100 * edges)
    axis.loglog(ends, [milliseconds * end / edges for end in ends], ":", color="0.6")
    axis.set_xlabel("edges")
    axis.set_ylabel("ms, forward and backward")
    axis.legend(frameon=False)
    figure.savefig(path, dpi=110)
