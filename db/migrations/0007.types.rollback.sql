drop type pgdrip.maintenance, pgdrip.violation, pgdrip.contact_explanation,
  pgdrip.import_result, pgdrip.publication, pgdrip.triage, pgdrip.entry,
  pgdrip.settlement, pgdrip.report_verdict, pgdrip.claimed_message cascade;
