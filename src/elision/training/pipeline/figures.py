"""The figures of a plan: one row of a table of schedules."""

from typing import Any

from elision.training.pipeline.plan import Plan

__all__ = ["figures", "shown"]


def figures(plan: Plan) -> dict[str, Any]:
    """The figures of a plan, as files have them: its unit of time, bytes, updates."""
    return {
        "schedule": plan.schedule.name,
        "partition": plan.partition.strategy,
        "unit": plan.unit,
        "makespan": plan.makespan,
        "period": plan.period,
        "bubble": plan.bubble,
        "peak_activations": max(plan.peak_activations),
        "peak_bytes": max(plan.peak_bytes),
        "weight_versions": max(plan.weight_versions),
        "delay": max(plan.delays),
        "sent_bytes": plan.sent_bytes,
    }


def shown(row: dict[str, Any]) -> dict[str, str]:
    """:func:`figures` as people read them: milliseconds or cycles, MiB, per cent."""
    scale, unit = (1e3, "ms") if row["unit"] == "s" else (1, "cycles")
    return {
        "schedule": row["schedule"],
        "stages": row["partition"],
        f"makespan, {unit}": f"{row['makespan'] * scale:,.4g}",
        f"per micro-batch, {unit}": f"{row['period'] * scale:,.4g}",
        "bubble": f"{100 * row['bubble']:.1f} %",
        "activations": str(row["peak_activations"]),
        "kept, MiB": f"{row['peak_bytes'] / 2**20:,.4g}",
        "weight versions": str(row["weight_versions"]),
        "delay": str(row["delay"]),
        "sent, MiB": f"{row['sent_bytes'] / 2**20:,.4g}",
    }
