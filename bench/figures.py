"""A figure: one thing measured some times, for each contestant, with the target that sidecar is to
meet; and the table of them.
"""

import statistics
from dataclasses import dataclass, field

COLUMNS = ("alone", "sidecar", "start_server")


@dataclass
class Figure:
    """Runs of one measurement. `target` is an operator and a number; `judged` says which of the
    runs it is held against.
    """

    part: str
    name: str
    unit: str
    runs: dict[str, list[float]] = field(default_factory=dict)
    target: tuple[str, float] | None = None
    judged: str = "median"
    note: str = ""

    def add(self, contestant: str, value: float) -> None:
        self.runs.setdefault(contestant, []).append(value)

    def less(self, value: float) -> None:
        """Subtract from every run."""
        self.runs = {who: [run - value for run in runs] for who, runs in self.runs.items()}

    @property
    def met(self) -> bool | None:
        """Whether sidecar meets the target; None where there is none, or nothing was measured."""
        runs = self.runs.get("sidecar")
        if not runs or self.target is None:
            return None
        value = {"median": statistics.median, "max": max, "sum": sum}[self.judged](runs)
        operator, limit = self.target
        return value <= limit if operator == "≤" else value >= limit

    def plain(self) -> dict[str, object]:
        """For JSON."""
        summary = {
            who: dict(zip(("min", "median", "max"), spread(runs), strict=True))
            for who, runs in self.runs.items()
            if runs
        }
        return {
            "part": self.part, "name": self.name, "unit": self.unit, "runs": self.runs, "summary": summary,
            "target": f"{self.target[0]} {self.target[1]:g}" if self.target else None, "judged": self.judged, "met": self.met,
            "note": self.note,
        }  # fmt: skip


def spread(runs: list[float]) -> tuple[float, float, float]:
    return min(runs), statistics.median(runs), max(runs)


def number(value: float) -> str:
    """About three digits that matter, and no `-0`."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 2 else 3
    text = f"{value:.{digits}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def cell(runs: list[float] | None) -> str:
    """`median (min–max)`, or one number where the runs agree."""
    if not runs:
        return "–"
    least, median, most = map(number, spread(runs))
    return median if least == most else f"{median} ({least}–{most})"


def table(figures: list[Figure]) -> str:
    """All figures as a Markdown table that can also be read as it is."""
    rows = [["", "unit", "runs", *COLUMNS, "target", ""], []]
    part = ""
    for each in figures:
        if each.part != part:
            part = each.part
            rows.append([f"**{part}**", *[""] * 7])
        runs = max(map(len, each.runs.values()), default=0)
        goal = ""
        if each.target:
            goal = f"{each.target[0]} {each.target[1]:g}" + {"max": " (max)", "sum": " (sum)"}.get(
                each.judged, ""
            )
        mark = {True: "✓", False: "✗", None: ""}[each.met]
        rows.append(
            [
                each.name,
                each.unit,
                str(runs),
                *[cell(each.runs.get(who)) for who in COLUMNS],
                goal,
                mark,
            ]
        )
    widths = [max(len(row[column]) for row in rows if row) for column in range(8)]
    rows[1] = ["-" * width for width in widths]
    return "\n".join(
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    )
