drop type pgdrip.forecast cascade;
drop type pgdrip.forecast_slice cascade;
drop type pgdrip.forecast_lot cascade;
drop type pgdrip.sender_queue cascade;
drop type pgdrip.sender_share cascade;
drop index pgdrip.enrollments_without_sender;
drop table pgdrip.wheels cascade;
update pgdrip.senders as s set status = 'retired' where s.status = 'retiring';
alter table pgdrip.senders
  drop constraint senders_status_known,
  add constraint senders_status_known check (status in ('active', 'paused', 'retired')),
  drop column fault_threshold cascade,
  drop column failover_after cascade,
  drop column down_at cascade,
  drop column moves_to cascade,
  drop column deleted_at cascade;
