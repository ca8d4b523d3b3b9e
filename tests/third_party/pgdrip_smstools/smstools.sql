-- Run once by the owner of schema pgdrip, after `pgdrip migrate`.
begin;
insert into pgdrip.channels (channel, address, features) values ('smstools', 'phone', '{}')
on conflict do nothing;
insert into pgdrip.error_rules (channel, code, class, source) values
  ('smstools', 'spool_full', 'transient', 'errno(3): ENOSPC or EDQUOT, nothing was queued'),
  ('smstools', 'modem_failed', 'permanent', 'smstools3 manual: folder failed')
on conflict do nothing;
commit;
