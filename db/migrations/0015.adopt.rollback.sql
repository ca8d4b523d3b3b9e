drop table pgdrip.adoptions cascade;
