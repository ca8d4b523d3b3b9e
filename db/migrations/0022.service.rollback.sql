drop index pgdrip.senders_unlimited, pgdrip.senders_out_of_service;
