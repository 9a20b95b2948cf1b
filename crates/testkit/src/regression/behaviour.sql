-- What happens by itself: triggers, rules, views, event triggers.
CREATE TABLE kinds.journal (n int GENERATED ALWAYS AS IDENTITY, what text);
CREATE FUNCTION kinds.note_row() RETURNS trigger LANGUAGE plpgsql AS $f$
    BEGIN INSERT INTO kinds.journal (what) VALUES (concat_ws(' ', TG_NAME, TG_OP, TG_ARGV[0])); RETURN coalesce(NEW, OLD); END $f$;
CREATE FUNCTION kinds.note_statement() RETURNS trigger LANGUAGE plpgsql AS $f$
    BEGIN INSERT INTO kinds.journal (what) SELECT TG_NAME || count(*) FROM came; RETURN NULL; END $f$;
CREATE TABLE kinds.watched (id int PRIMARY KEY, a int, b text);
CREATE TRIGGER before_row BEFORE INSERT OR UPDATE OF a ON kinds.watched FOR EACH ROW WHEN (NEW.a > 0) EXECUTE FUNCTION kinds.note_row('an ''argument''');
CREATE TRIGGER after_rows AFTER INSERT ON kinds.watched REFERENCING NEW TABLE AS came FOR EACH STATEMENT EXECUTE FUNCTION kinds.note_statement();
CREATE CONSTRAINT TRIGGER later AFTER DELETE ON kinds.watched DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION kinds.note_row();
CREATE TRIGGER truncated AFTER TRUNCATE ON kinds.watched EXECUTE FUNCTION kinds.note_row();
CREATE TRIGGER always BEFORE UPDATE ON kinds.watched FOR EACH ROW EXECUTE FUNCTION kinds.note_row();
CREATE TRIGGER replica BEFORE UPDATE ON kinds.watched FOR EACH ROW EXECUTE FUNCTION kinds.note_row();
CREATE TRIGGER disabled BEFORE UPDATE ON kinds.watched FOR EACH ROW EXECUTE FUNCTION kinds.note_row();
ALTER TABLE kinds.watched ENABLE ALWAYS TRIGGER always, ENABLE REPLICA TRIGGER replica, DISABLE TRIGGER disabled;
INSERT INTO kinds.watched SELECT i, i % 3, md5(i::text) FROM generate_series(1, 60) i;
CREATE TRIGGER in_partitions AFTER INSERT ON kinds.ranged FOR EACH ROW EXECUTE FUNCTION kinds.note_row('partition');
ALTER TABLE kinds.ranged_late DISABLE TRIGGER in_partitions;

CREATE RULE logged AS ON UPDATE TO kinds.watched WHERE OLD.a <> NEW.a DO ALSO INSERT INTO kinds.journal (what) VALUES ('rule ' || OLD.id);
CREATE RULE kept AS ON DELETE TO kinds.of_type DO INSTEAD NOTHING;
ALTER TABLE kinds.of_type ENABLE ALWAYS RULE kept;

CREATE VIEW kinds.guarded WITH (security_barrier, security_invoker) AS SELECT id, a FROM kinds.watched WHERE a > 0;
CREATE VIEW kinds.checked AS SELECT * FROM kinds.watched WHERE id > 3 WITH LOCAL CHECK OPTION;
CREATE VIEW kinds.upon_checked AS SELECT id, a, b AS "the B" FROM kinds.checked WHERE a > 0 WITH CASCADED CHECK OPTION;
ALTER VIEW kinds.upon_checked ALTER a SET DEFAULT 5;
CREATE RECURSIVE VIEW kinds.counting (n) AS VALUES (1) UNION ALL SELECT n + 1 FROM counting WHERE n < 10;
CREATE VIEW kinds.windowed AS SELECT id, kinds.nth() OVER w, sum(a) FILTER (WHERE a > 1) OVER (w ROWS BETWEEN 2 PRECEDING AND CURRENT ROW EXCLUDE TIES)
    FROM kinds.watched WINDOW w AS (PARTITION BY a ORDER BY id);
CREATE VIEW kinds.grouped AS SELECT colour, id % 3 AS third, count(*), grouping(colour) FROM kinds.indexed, LATERAL (SELECT 1) one
    GROUP BY GROUPING SETS (CUBE (colour, id % 3), ()) HAVING count(*) > 1;
CREATE VIEW kinds.replaced AS SELECT id, b FROM kinds.watched;
CREATE TRIGGER instead INSTEAD OF INSERT OR DELETE ON kinds.replaced FOR EACH ROW EXECUTE FUNCTION kinds.note_row();
-- Two that need each other: a rule of its own makes one of them a view.
CREATE VIEW kinds.egg AS SELECT 1 AS id, 'x'::text AS note;
CREATE VIEW kinds.hen AS SELECT id, note FROM kinds.egg;
CREATE OR REPLACE VIEW kinds.egg AS SELECT 1 AS id, (SELECT 'no hen'::text) AS note;
CREATE MATERIALIZED VIEW kinds.summed WITH (fillfactor = 60) AS SELECT colour, count(*), sum(id) FROM kinds.indexed GROUP BY colour;
CREATE UNIQUE INDEX summed_colour ON kinds.summed (colour);
CREATE VIEW kinds.a_summed AS SELECT sum FROM kinds.summed;
CREATE MATERIALIZED VIEW kinds.a_total AS SELECT sum(sum) FROM kinds.a_summed;
CREATE MATERIALIZED VIEW kinds.unfilled AS SELECT 1 AS one WITH NO DATA;

CREATE FUNCTION kinds.note_ddl() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER AS $f$
    BEGIN INSERT INTO kinds.journal (what) VALUES ('ddl ' || tg_tag); END $f$;
CREATE EVENT TRIGGER on_end ON ddl_command_end EXECUTE FUNCTION kinds.note_ddl();
CREATE EVENT TRIGGER on_drop ON sql_drop WHEN TAG IN ('DROP TABLE', 'DROP VIEW') EXECUTE FUNCTION kinds.note_ddl();
CREATE EVENT TRIGGER on_rewrite ON table_rewrite EXECUTE FUNCTION kinds.note_ddl();
CREATE EVENT TRIGGER on_start ON ddl_command_start EXECUTE FUNCTION kinds.note_ddl();
ALTER EVENT TRIGGER on_end ENABLE ALWAYS;
ALTER EVENT TRIGGER on_rewrite ENABLE REPLICA;
ALTER EVENT TRIGGER on_start DISABLE;
