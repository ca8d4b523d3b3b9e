-- What the limit works on: a row for each live step, and a journal without an index.
create schema bench_limit;
create table bench_limit.step (
  step_id     bigint primary key,
  due_at      timestamptz not null,
  lease_until timestamptz,
  token       bigint,
  sender_id   integer not null,
  number      integer not null
) with (fillfactor = 50);
insert into bench_limit.step (step_id, due_at, sender_id, number)
select n, now() - (1 + random()) * interval '1 hour', 1 + n %% 3000, 1
  from generate_series(1, %(steps)s) as n;
create index on bench_limit.step (due_at);
create table bench_limit.journal (
  at        timestamptz not null default now(),
  step_id   bigint not null,
  token     bigint not null,
  number    integer not null,
  sender_id integer not null,
  outcome   text not null
);
