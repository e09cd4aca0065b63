"""The tables of the log: every column with its type, its unit and what it means, written once and carried by the file as comments.

Owns names, types, meanings and the two views. Knows neither the ledger nor DuckDB: it only spells the statements. The schema's own
fingerprint decides whether a file is of this toolkit, so that no version number can be forgotten.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

ROWS_VERSION = 2  # raise it when rows.py makes other values of the same ledger: every file is then made anew


@dataclass(frozen=True, slots=True)
class Column:
    """A column as it is asked about: `type` is DuckDB's, `unit` stands in front of the meaning in the comment."""

    name: str
    type: str
    meaning: str
    unit: str = ""

    @property
    def comment(self) -> str:
        """What the file says of it, e.g. `s: download, check and store`."""
        return f"{self.unit}: {self.meaning}" if self.unit else self.meaning


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the file, or a view where `query` is given (the columns' types are then only for the reader)."""

    name: str
    meaning: str
    columns: Sequence[Column]
    query: str | None = None

    @property
    def of_jobs(self) -> bool:
        """Whether its rows belong to a job and are replaced with it."""
        return self.query is None and any(column.name == "job_id" for column in self.columns)


TABLES: Sequence[Table] = [
    Table(
        "jobs",
        "one row a job; facts of the latest attempt folded in",
        [
            Column("job_id", "VARCHAR", "UUID; also the first attempt's prompt_id"),
            Column("group_id", "VARCHAR", "batch, sweep or keyframe-then-clip it belongs to; NULL alone"),
            Column("group_name", "VARCHAR", "the name given to that group"),
            Column("project", "VARCHAR", "project folder"),
            Column("labels", "MAP(VARCHAR, VARCHAR)", "free labels given with the request, e.g. {'probe': 'before'}"),
            Column("kind", "VARCHAR", "image, video, workflow"),
            Column(
                "origin", "VARCHAR", "notebook, page, rest, cli; observed = seen on the server, submitted by something else; imported = read from an older file"
            ),
            Column("person", "VARCHAR", "who asked; 'owner' on a private home; NULL for observed and imported"),
            Column("simulated", "BOOLEAN", "made by the built-in engine; answers and ETAs leave these out"),
            Column(
                "status",
                "VARCHAR",
                "created queued submitted running collecting | done done_partial done_no_files rejected failed cancelled removed lost timed_out",
            ),
            Column("failure_kind", "VARCHAR", "oom, missing_model, node_error, server_disk_full, ...; NULL unless failed"),
            Column("failure_node", "VARCHAR", "class of the node that failed"),
            Column("attempts", "INTEGER", "attempts made", unit="count"),
            Column("server_url", "VARCHAR", "server of the latest attempt"),
            Column("environment_id", "VARCHAR", "the server's configuration at that time (view servers)"),
            Column("family", "VARCHAR", "sdxl, illustrious, anima, wan22_5b, ...; NULL if not recognised"),
            Column("model", "VARCHAR", "main diffusion model: file name, forward slashes, no extension"),
            Column("models", "VARCHAR[]", "every model file of the graph, in graph order"),
            Column("loras", "STRUCT(name VARCHAR, strength DOUBLE)[]", "LoRAs applied, in order"),
            Column("preset", "VARCHAR", "draft, standard, high or NULL"),
            Column("prompt", "VARCHAR", "positive prompt as sent"),
            Column("negative_prompt", "VARCHAR", "negative prompt as sent"),
            Column("sampler", "VARCHAR", "NULL where two samplers differ"),
            Column("scheduler", "VARCHAR", "noise schedule of the sampler"),
            Column("steps", "INTEGER", "summed over samplers", unit="steps"),
            Column("cfg", "DOUBLE", "guidance scale"),
            Column("denoise", "DOUBLE", "share of the noise schedule that is run", unit="0..1"),
            Column("seed", "UBIGINT", "0 .. 2^64-1"),
            Column("width", "INTEGER", "of the final file", unit="px"),
            Column("height", "INTEGER", "of the final file", unit="px"),
            Column("batch_size", "INTEGER", "pictures in one latent batch", unit="count"),
            Column("frames", "INTEGER", "1 for pictures", unit="frames"),
            Column("fps", "DOUBLE", "NULL for pictures", unit="1/s"),
            Column("clip_s", "DOUBLE", "frames / fps; NULL for pictures", unit="s"),
            Column("megapixels", "DOUBLE", "width * height * batch_size * frames / 1e6", unit="Mpx"),
            Column("parameters", "JSON", "every role parameter found in the graph"),
            Column("graph_hash", "VARCHAR", "of the graph without seeds and file prefixes: equal = the same recipe"),
            Column("created_at", "TIMESTAMPTZ", "accepted and in the ledger"),
            Column("submitted_at", "TIMESTAMPTZ", "POSTed to the server"),
            Column("started_at", "TIMESTAMPTZ", "the server began"),
            Column("ended_at", "TIMESTAMPTZ", "final status reached"),
            Column("wait_home_s", "DOUBLE", "accepted -> POSTed: waiting in the toolkit's own line", unit="s"),
            Column("wait_server_s", "DOUBLE", "POSTed -> execution_start: waiting in the server's queue", unit="s"),
            Column("run_s", "DOUBLE", "execution_start -> execution_success", unit="s"),
            Column("load_s", "DOUBLE", "in loader nodes (reading files; weights may move to the device later, see first_step_s)", unit="s"),
            Column("encode_s", "DOUBLE", "in text, image and VAE encoding nodes", unit="s"),
            Column("sample_s", "DOUBLE", "in sampler nodes, first step included", unit="s"),
            Column("decode_s", "DOUBLE", "in VAE decoding nodes", unit="s"),
            Column("save_s", "DOUBLE", "in output nodes", unit="s"),
            Column("other_s", "DOUBLE", "run_s minus the five above", unit="s"),
            Column("fetch_s", "DOUBLE", "download, check and store", unit="s"),
            Column("total_s", "DOUBLE", "created_at -> ended_at", unit="s"),
            Column("first_step_s", "DOUBLE", "first step of the longest sampler; far above step_s = weights moved to the device", unit="s"),
            Column("step_s", "DOUBLE", "median of its other steps: the s/it people compare", unit="s/step"),
            Column("warmth", "VARCHAR", "cold = a loader node ran; warm = all loaders cached; cached = no sampler ran; NULL unknown"),
            Column("nodes_run", "INTEGER", "nodes executed", unit="count"),
            Column("nodes_cached", "INTEGER", "nodes the server reused", unit="count"),
            Column("timed_by", "VARCHAR", "events = socket frames, our monotonic clock; history = the server's own timestamps (no stages, no steps)"),
            Column("files", "INTEGER", "files stored", unit="count"),
            Column("size_bytes", "BIGINT", "of these files", unit="bytes"),
        ],
    ),
    Table(
        "nodes",
        "one row a node of an attempt, cached ones included",
        [
            Column("job_id", "VARCHAR", "the job, see jobs"),
            Column("attempt", "INTEGER", "1-based"),
            Column("node_id", "VARCHAR", "id in the sent graph"),
            Column("class", "VARCHAR", "class_type"),
            Column("title", "VARCHAR", "title in the user's workflow"),
            Column("stage", "VARCHAR", "load, encode, sample, decode, save, other"),
            Column("model", "VARCHAR", "file a loader reads"),
            Column("cached", "BOOLEAN", "not run, reused"),
            Column("started_at", "TIMESTAMPTZ", "the server began this node"),
            Column("elapsed_s", "DOUBLE", "0 if cached", unit="s"),
            Column("steps", "INTEGER", "progress maximum", unit="steps"),
            Column("first_step_s", "DOUBLE", "its first step", unit="s"),
            Column("step_s", "DOUBLE", "median of steps 2..", unit="s/step"),
        ],
    ),
    Table(
        "outputs",
        "one row a file or text a job produced",
        [
            Column("job_id", "VARCHAR", "the job, see jobs"),
            Column("output", "INTEGER", "1-based in the job"),
            Column("attempt", "INTEGER", "1-based: the attempt, see attempts"),
            Column("node_id", "VARCHAR", "the node that made it, id in the sent graph"),
            Column("name", "VARCHAR", "path below the projects folder"),
            Column("media_type", "VARCHAR", "e.g. image/png"),
            Column("kind", "VARCHAR", "image, video, audio, text, model3d, latent"),
            Column("size_bytes", "BIGINT", "of the file", unit="bytes"),
            Column("sha256", "VARCHAR", "of the file, hexadecimal"),
            Column("width", "INTEGER", "of the file", unit="px"),
            Column("height", "INTEGER", "of the file", unit="px"),
            Column("frames", "INTEGER", "1 for pictures", unit="frames"),
            Column("fps", "DOUBLE", "NULL for pictures", unit="1/s"),
            Column("cached", "BOOLEAN", "the server reused an older file; ours is a copy"),
            Column("temporary", "BOOLEAN", "from a preview node"),
            Column("blank", "BOOLEAN", "one colour or all zero"),
            Column("disk", "VARCHAR", "present, trashed (can be restored), missing (deleted outside the toolkit)"),
            Column("verdict", "VARCHAR", "keep, reject or NULL: the latest rating"),
            Column("stored_at", "TIMESTAMPTZ", "the file was complete on disk"),
        ],
    ),
    Table(
        "attempts",
        "one row a try",
        [
            Column("job_id", "VARCHAR", "the job, see jobs"),
            Column("attempt", "INTEGER", "1-based"),
            Column("prompt_id", "VARCHAR", "id on the server"),
            Column("reason", "VARCHAR", "first, lost, asked, output_missing, failover"),
            Column("server_url", "VARCHAR", "server it was sent to"),
            Column("environment_id", "VARCHAR", "the server's configuration at that time (table servers)"),
            Column("status", "VARCHAR", "final status of this try"),
            Column("failure_kind", "VARCHAR", "oom, missing_model, node_error, ...; NULL unless failed"),
            Column("failure_node", "VARCHAR", "class of the node that failed"),
            Column("message", "VARCHAR", "first line of the server's error, secrets removed"),
            Column("submitted_at", "TIMESTAMPTZ", "POSTed to the server"),
            Column("started_at", "TIMESTAMPTZ", "the server began"),
            Column("ended_at", "TIMESTAMPTZ", "final status of this try reached"),
            Column("run_s", "DOUBLE", "server time spent, also when it failed or was cancelled", unit="s"),
        ],
    ),
    Table(
        "etas",
        "one row a prediction, at fixed moments only: accepted, started, 10 %, 25 %, 50 %, 75 %",
        [
            Column("job_id", "VARCHAR", "the job, see jobs"),
            Column("attempt", "INTEGER", "1-based: the attempt, see attempts"),
            Column("moment", "VARCHAR", "accepted, started, p10, p25, p50, p75"),
            Column("target", "VARCHAR", "start or end"),
            Column("basis", "VARCHAR", "history, family (shrunk), this_run (no history yet)"),
            Column("made_at", "TIMESTAMPTZ", "the prediction was made"),
            Column("expected_s", "DOUBLE", "from made_at", unit="s"),
            Column("low_s", "DOUBLE", "10th percentile promised", unit="s"),
            Column("high_s", "DOUBLE", "90th percentile promised", unit="s"),
            Column("actual_s", "DOUBLE", "what it was; NULL until known or if the job did not get there", unit="s"),
            Column("error", "DOUBLE", "expected_s / actual_s - 1", unit="ratio"),
            Column("inside", "BOOLEAN", "low_s <= actual_s <= high_s"),
        ],
    ),
    Table(
        "servers",
        "one row a server configuration and period; a new row when anything below changes",
        [
            Column("environment_id", "VARCHAR", "the configuration, as in jobs and attempts"),
            Column("server_url", "VARCHAR", "without credentials"),
            Column("name", "VARCHAR", "the owner's word for the box"),
            Column("simulated", "BOOLEAN", "the built-in engine"),
            Column("device", "VARCHAR", "as /system_stats names it"),
            Column("vram_bytes", "BIGINT", "total", unit="bytes"),
            Column("comfyui_version", "VARCHAR", "as /system_stats says"),
            Column("pytorch_version", "VARCHAR", "with its CUDA or ROCm build, e.g. 2.13.0+cu130; the driver is not visible over HTTP"),
            Column("python_version", "VARCHAR", "as /system_stats says"),
            Column("os", "VARCHAR", "as /system_stats says"),
            Column("arguments", "VARCHAR[]", "its command line, secrets removed"),
            Column("packs_hash", "VARCHAR", "of the node classes and their modules in /object_info"),
            Column("price_per_hour", "DOUBLE", "set by the owner; NULL unset", unit="currency/h"),
            Column("first_seen_at", "TIMESTAMPTZ", "this configuration was first seen"),
            Column("last_seen_at", "TIMESTAMPTZ", "this configuration was last seen"),
        ],
    ),
    Table(
        "ratings",
        "one row a judgement; the latest one a person and output counts",
        [
            Column("job_id", "VARCHAR", "the job, see jobs"),
            Column("output", "INTEGER", "1-based"),
            Column("person", "VARCHAR", "who judged"),
            Column("verdict", "VARCHAR", "keep, reject"),
            Column("stars", "TINYINT", "optional", unit="1..5"),
            Column("reasons", "VARCHAR[]", "hands, face, anatomy, style, blur, off_prompt, ... or free words"),
            Column("comment", "VARCHAR", "in their own words"),
            Column("rated_at", "TIMESTAMPTZ", "the judgement was made"),
        ],
    ),
]

META = Table(
    "meta",
    "one row: what this file was made from",
    [
        Column("ledger_id", "VARCHAR", "the ledger these rows are copied from"),
        Column("schema", "VARCHAR", "fingerprint of tables, comments and views"),
        Column("revision", "BIGINT", "the ledger's revision these rows cover"),
    ],
)

VIEWS: Sequence[Table] = [
    Table(
        "models",
        "one row a model file or LoRA a job used",
        [
            Column("job_id", "VARCHAR", "the job, see jobs"),
            Column("kind", "VARCHAR", "model, lora"),
            Column("place", "BIGINT", "1-based: its place among the models or LoRAs of the job"),
            Column("name", "VARCHAR", "file name, forward slashes, no extension"),
            Column("strength", "DOUBLE", "of a LoRA; NULL for models"),
        ],
        """
        SELECT job_id, 'model' AS kind, generate_subscripts(models, 1) AS place, unnest(models) AS name, CAST(NULL AS DOUBLE) AS strength FROM jobs
        UNION ALL
        SELECT job_id, 'lora', place, lora.name, lora.strength
        FROM (SELECT job_id, generate_subscripts(loras, 1) AS place, unnest(loras) AS lora FROM jobs)
        """,
    ),
    Table(
        "daily",
        "one row a day, kind of job and origin of the pictures (simulated or real)",
        [
            Column("day", "DATE", "of created_at, in UTC"),
            Column("kind", "VARCHAR", "image, video, workflow"),
            Column("simulated", "BOOLEAN", "made by the built-in engine"),
            Column("jobs", "BIGINT", "accepted that day", unit="count"),
            Column("done", "BIGINT", "of these, ended done, done_partial or done_no_files", unit="count"),
            Column("failed", "BIGINT", "of these, failed, rejected, lost or timed_out", unit="count"),
            Column("files", "BIGINT", "files stored", unit="count"),
            Column("size_bytes", "BIGINT", "of these files", unit="bytes"),
            Column("run_s", "DOUBLE", "sum of run_s", unit="s"),
            Column("run_p50_s", "DOUBLE", "median of run_s", unit="s"),
            Column("clip_s", "DOUBLE", "length of all clips of jobs that ended done", unit="s"),
        ],
        """
        SELECT CAST(created_at AT TIME ZONE 'UTC' AS DATE) AS day, kind, simulated, count(*) AS jobs,
          count(*) FILTER (WHERE status IN ('done', 'done_partial', 'done_no_files')) AS done,
          count(*) FILTER (WHERE status IN ('failed', 'rejected', 'lost', 'timed_out')) AS failed,
          CAST(sum(files) AS BIGINT) AS files, CAST(sum(size_bytes) AS BIGINT) AS size_bytes,
          sum(run_s) AS run_s, median(run_s) AS run_p50_s,
          sum(clip_s) FILTER (WHERE status IN ('done', 'done_partial')) AS clip_s
        FROM jobs GROUP BY ALL
        """,
    ),
]


def table(name: str) -> Table:
    """The table of this name."""
    return next(found for found in TABLES if found.name == name)


def statements() -> Iterator[str]:
    """The SQL that makes an empty file: tables, views and a comment on each of them and on every column."""
    for made in (*TABLES, META, *VIEWS):
        yield _create(made)
        yield f"COMMENT ON {'VIEW' if made.query else 'TABLE'} {made.name} IS {quoted(made.meaning)}"
        for column in made.columns:
            yield f'COMMENT ON COLUMN {made.name}."{column.name}" IS {quoted(column.comment)}'


def _create(made: Table) -> str:
    if made.query:
        return f"CREATE VIEW {made.name} AS {made.query}"
    columns = ", ".join(f'"{column.name}" {column.type}' for column in made.columns)
    return f"CREATE TABLE {made.name} ({columns})"


def quoted(text: str) -> str:
    """An SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


SCHEMA = hashlib.sha256("\n".join([f"rows {ROWS_VERSION}", *statements()]).encode()).hexdigest()[:16]
