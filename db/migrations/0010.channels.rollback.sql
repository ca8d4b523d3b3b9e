delete from pgdrip.error_rules where channel in ('gowa', 'whatsapp_cloud', 'twilio');
drop type pgdrip.known_sender, pgdrip.uncertain_send cascade;
