delete from pgdrip.error_rules where channel = 'smtp';
