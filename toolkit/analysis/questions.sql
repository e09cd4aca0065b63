-- The named questions of `studio.ask`: name, sentence, SQL. They leave out simulated runs; 'cfg test' and '%mika%' are examples for batch= and lora=.

-- slow_recipes: Which model, sampler and size is slow?
from jobs select model, sampler, width, height, steps, count(*) as n,
  median(run_s) as p50_s, quantile_cont(run_s, 0.9) as p90_s, median(run_s) / any_value(megapixels) as s_per_mpx
where status = 'done' and not simulated and warmth = 'warm'
group by all having n >= 5 order by p50_s desc limit 10;

-- boxes: Which box is faster for the same work?
from jobs join servers using (environment_id)
select model, width, height, frames, device, count(*) as n, median(step_s) as s_per_step
where warmth = 'warm' and not jobs.simulated group by all order by model, width, frames, s_per_step;

-- cold_warm: What does a cold start cost?
from jobs select model, warmth, count(*) as n, median(run_s) as run_s, median(load_s) as load_s, median(first_step_s - step_s) as hidden_load_s
where status = 'done' and not simulated group by all order by model, warmth;

-- reloads: How often does a server switch models, and what did that cost?
with runs as (from jobs select server_url, started_at, model, load_s + first_step_s - step_s as load_s,
    lag(model) over (partition by server_url order by started_at) as before where started_at is not null and not simulated)
from runs select server_url, started_at::date as day, count(*) as jobs, count(*) filter (model <> before) as switches,
  sum(load_s) filter (model <> before) as lost_s group by all order by lost_s desc limit 10;

-- queue_wait: How long do jobs wait, where, and at what hour?
from jobs select hour(created_at) as hour, count(*) as n, median(wait_home_s) as home_p50_s, quantile_cont(wait_home_s, 0.95) as home_p95_s,
  median(wait_server_s) as server_p50_s, quantile_cont(wait_server_s, 0.95) as server_p95_s
where not simulated and started_at is not null group by all order by hour;

-- stages: Where does the time of a picture or clip go?
unpivot (from jobs select kind, median(wait_home_s + wait_server_s) as wait, median(load_s) as load, median(encode_s) as encode, median(sample_s) as sample,
    median(decode_s) as decode, median(save_s) as save, median(fetch_s) as fetch where status = 'done' and not simulated group by kind)
on columns(* exclude kind) into name stage value median_s order by kind, median_s desc;

-- slowest_nodes: Which nodes take the time?
from nodes join jobs using (job_id) select class, stage, count(*) as runs, sum(elapsed_s) as total_s, median(elapsed_s) as p50_s
where not cached and not simulated group by all order by total_s desc limit 10;

-- upgrade: Did an upgrade make it slower? (same recipe, warm, before and after each change of a server)
with t as (from jobs select server_url, environment_id, model, width, height, frames, sampler, median(step_s) as s, count(*) as n
    where warmth = 'warm' and timed_by = 'events' and not simulated group by all having n >= 8),
  u as (from t join servers using (environment_id, server_url) select *, comfyui_version as version,
    lag(s) over w as s_before, lag(n) over w as n_before, lag(comfyui_version) over w as version_before
    window w as (partition by server_url, model, width, height, frames, sampler order by first_seen_at))
from u select server_url, version_before, version, model, width, frames, n_before, n, s_before, s, s / s_before as ratio
where s_before is not null order by ratio desc;

-- probe: The same jobs before and after, on purpose
pivot (from jobs select graph_hash, model, server_url, labels['probe'] as probe, step_s where labels['probe'] is not null and warmth = 'warm')
on probe in ('before', 'after') using median(step_s) group by graph_hash, model, server_url order by graph_hash, server_url;

-- clip_second: What does one second of clip cost, failures paid?
with spent as (from attempts join servers using (environment_id, server_url) select job_id, sum(run_s) as s, sum(run_s * price_per_hour / 3600) as money group by all)
from jobs join spent using (job_id) select model, width, height, sum(s) / sum(clip_s) filter (status = 'done') as gpu_s_per_clip_s,
  sum(money) / sum(clip_s) filter (status = 'done') as cost_per_clip_s, count(*) filter (status <> 'done') as not_done
where (kind = 'video' or clip_s is not null) and not simulated group by all order by cost_per_clip_s desc;

-- cost_per_keeper: What does a picture cost that somebody keeps?
with spent as (from attempts join servers using (environment_id, server_url) select job_id, sum(run_s * price_per_hour / 3600) as money group by all),
  kept as (from outputs select job_id, count(*) filter (verdict = 'keep') as kept group by all)
from jobs join spent using (job_id) left join kept using (job_id)
select model, preset, count(*) as jobs, sum(kept) as kept, sum(money) / nullif(sum(kept), 0) as cost_per_keeper
where kind = 'image' and not simulated group by all order by cost_per_keeper;

-- eta_quality: How reliable are the ETAs?
from etas join jobs using (job_id) select target, moment, basis, count(*) as n, median(abs(error)) as median_abs_error, median(error) as bias, avg(inside::int) as coverage
where actual_s is not null and not simulated group by all order by target, moment, basis;

-- failures: What fails, where, since when?
from attempts join jobs using (job_id) select date_trunc('week', attempts.submitted_at) as week, attempts.failure_kind, attempts.failure_node, attempts.server_url, count(*) as n, sum(attempts.run_s) as lost_s
where attempts.status in ('failed', 'lost', 'timed_out') and not simulated group by all order by week desc, n desc limit 10;

-- busy: How busy is each server?
from jobs join servers using (environment_id, server_url) select name, started_at::date as day, sum(run_s) / 86400 as busy_share, count(*) as jobs,
  count(*) filter (origin = 'observed') as from_elsewhere where started_at is not null and not jobs.simulated group by all order by day desc, name limit 9;

-- people: Who used the GPU this week?
from jobs select coalesce(person, origin) as who, count(*) as jobs, sum(run_s) / 60 as gpu_min, median(wait_home_s + wait_server_s) as wait_p50_s, count(*) filter (kind = 'video') as clips
where started_at > now() - interval 7 day and not simulated group by all order by gpu_min desc;

-- lora: What did I make with this LoRA, at what strength, and did I keep it?
with used as (from jobs select job_id, model, unnest(loras) as lora where not simulated)
from used join outputs using (job_id) select lora.name as lora, lora.strength as strength, model, count(*) as files, count(*) filter (verdict = 'keep') as kept, max(outputs.name) as latest
where lora.name ilike '%mika%' group by all order by lora, strength;

-- winners: Which setting wins? (share kept, by setting)
from jobs join outputs using (job_id) select cfg, sampler, count(*) as n, avg((verdict = 'keep')::int) as kept_share, median(run_s) as run_s
where group_name = 'cfg test' and verdict is not null group by all order by kept_share desc limit 6;

-- timeline: Who ran what, when?
from jobs left join servers using (environment_id, server_url) select coalesce(name, server_url) as server, model, kind, status, person, warmth, started_at,
  run_s, wait_home_s, wait_server_s, group_name, job_id
where started_at is not null and not jobs.simulated order by started_at desc limit 500;
