-- Prints what pg_waldump would, by the extension pg_walinspect (from PostgreSQL 16 on):
-- psql -X -q -A -t -v start=0/1000028 -v end=0/2000000 -f walinspect.sql
set timezone = 'UTC';
create extension if not exists pg_walinspect;
select format(
    'rmgr: %s len (rec/tot): %s/ %s, tx: %s, lsn: %s, prev %s, desc: %s %s %s',
    resource_manager, record_length - fpi_length, record_length, xid, start_lsn, prev_lsn, record_type,
    description, block_ref)
from pg_get_wal_records_info(:'start', :'end');
