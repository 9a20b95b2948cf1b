CREATE TABLE kinds.stored_so (id int, note text STORAGE EXTERNAL);
CREATE ROLE kind_granted;
GRANT kind_granted TO kind_reader WITH INHERIT FALSE, SET TRUE, ADMIN TRUE;
DROP ROLE kind_granted;
CREATE SUBSCRIPTION from_16 CONNECTION 'host=/nowhere dbname=x' PUBLICATION p WITH (connect = false, slot_name = NONE, origin = none, run_as_owner = true, streaming = parallel);
