drop table pgdrip.receipts, pgdrip.provider_refs, pgdrip.deliveries cascade;
