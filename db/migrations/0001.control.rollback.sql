drop schema pgdrip cascade;
