"""Why a job took what it took: each stage against what is usual for the same work on the same server.

Owns what "the same work" is here: model, size, length, steps, sampler and batch, whatever the words; and the sentence that says what stands out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from toolkit.analysis.answer import Answer
from toolkit.progress import duration
from toolkit.stats import Stats

STAGES = {
    "wait_home": "in our line", "wait_server": "in the server's queue", "load": "loading models", "encode": "encoding", "sample": "sampling",
    "decode": "decoding", "save": "saving", "other": "in other nodes", "fetch": "fetching its files",
}  # fmt: skip
SAME = ("kind", "simulated", "server_url", "model", "width", "height", "frames", "steps", "sampler", "batch_size")
STANDS_OUT_S, STANDS_OUT_SHARE = 0.2, 0.2  # a difference is told above both: seconds, and share of the usual whole
WORDS = {"cold": "it was cold, a model had to be loaded", "warm": "its models were loaded", "cached": "the server had made it before and reused it"}


def explain(stats: Stats, job_id: str) -> Answer:
    """The stages of an ended job in seconds, what is usual, and how many jobs that is taken from.

    Raises:
        HomeUnusable: the log cannot be published or read.
    """
    from toolkit.stats.connections import query_errors

    sql = _sql()
    with query_errors():
        relation = stats.sql(sql, job=job_id)
        columns, rows = list(relation.columns), relation.fetchall()
        ((warmth, status),) = stats.sql("from jobs select warmth, status where job_id = $job", job=job_id).fetchall()
    records = [dict(zip(columns, row, strict=True)) for row in rows]
    return Answer("explain", _sentence(job_id, records, warmth, status), sql, {"job": job_id}, columns, rows, None, relation)


def _sql() -> str:
    same = " and ".join(f"jobs.{name} is not distinct from mine.{name}" for name in SAME)
    usual = ", ".join(f"median(jobs.{stage}_s) as {stage}_s" for stage in STAGES)
    rows = " union all ".join(
        f"select {place} as place, '{stage}' as stage, mine.{stage}_s as took_s, usual.{stage}_s as usual_s, n from mine, usual"
        for place, stage in enumerate(STAGES)
    )
    return f"""with mine as (from jobs where job_id = $job),
  usual as (from jobs, mine select count(*) as n, {usual}
    where jobs.status = 'done' and jobs.job_id <> $job and {same})
from ({rows}) select stage, took_s, usual_s, took_s - usual_s as more_s, n order by place"""


def _sentence(job_id: str, records: Sequence[Mapping[str, Any]], warmth: str | None, status: str) -> str:
    took = sum(record["took_s"] or 0.0 for record in records)
    usual = sum(record["usual_s"] or 0.0 for record in records)
    n = records[0]["n"]
    began = f"Job {job_id[:8]} ({status}) took {duration(took)}"
    state = f" {WORDS[warmth][0].upper()}{WORDS[warmth][1:]}." if warmth in WORDS else ""
    if not n:
        return f"{began}; nothing like it ran on this server before.{state}"
    apart = sorted((record for record in records if _stands_out(record["more_s"], usual)), key=lambda record: -abs(record["more_s"]))
    told = [f"{duration(abs(record['more_s']))} {'more' if record['more_s'] > 0 else 'less'} {STAGES[record['stage']]}" for record in apart[:3]]
    return f"{began}, usually {duration(usual)} ({n} such jobs): {', '.join(told) or 'as usual in every stage'}.{state}"


def _stands_out(more_s: float | None, usual_s: float) -> bool:
    return more_s is not None and abs(more_s) > max(STANDS_OUT_S, STANDS_OUT_SHARE * usual_s)
