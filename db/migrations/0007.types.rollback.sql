drop type pgdrip.maintenance, pgdrip.violation, pgdrip.contact_explanation,
  pgdrip.import_result, pgdrip.publication, pgdrip.simulation, pgdrip.step_text, pgdrip.next_step, pgdrip.triage, pgdrip.entry,
  pgdrip.settlement, pgdrip.report_verdict, pgdrip.claimed_message cascade;
