//! The tables whose rows are moved, and how the work is cut.

use std::sync::Arc;

use everpoint_pgformat::MajorVersion;

use super::{
    error::MoveError,
    formats::{Format, TypeRow, Types},
    server::Session,
};

const WHAT: &str = "list the tables";
/// No table is cut into pieces smaller than this.
const LEAST_PIECE_BYTES: u64 = 64 << 20;

/// A table with rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Table {
    /// Schema and name, quoted.
    pub(super) name: String,
    /// The table that its rows are given to: itself, or the partitioned table that finds their places anew.
    pub(super) into: String,
    /// The columns that are stored and not computed, quoted; empty when there are none.
    pub(super) columns: String,
    /// What extensions say of which of their tables' rows are users'.
    pub(super) condition: Option<String>,
    pub(super) format: Format,
    /// With what is stored out of line.
    pub(super) bytes: u64,
    /// Blocks, when the table can be read by ranges of them.
    pub(super) blocks: Option<u64>,
}

/// A piece of work: a table or a range of its blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) table: Arc<Table>,
    /// The first block, and the first behind the piece; `None` to the end.
    pub(super) range: Option<(u64, Option<u64>)>,
    pub(super) bytes: u64,
}

/// Tables of users that hold anything, and the tables of extensions that hold users' settings. Temporary and
/// unlogged tables' rows do not survive recovery. Large objects' pages are a table like others.
///
/// Rows of a partition go to that partition, but for hashes of what is a number of an object, or may hold one: an
/// enum's values are other numbers in the target, so that rows belong into other partitions there.
const TABLES: &str = "SELECT format('%I.%I', n.nspname, c.relname), \
        coalesce((SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute a \
            WHERE a.attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND attgenerated = ''), ''), \
        (SELECT coalesce(array_agg(atttypid ORDER BY attnum), '{}') FROM pg_attribute a \
            WHERE a.attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND attgenerated = ''), \
        nullif(e.condition, ''), pg_table_size(c.oid), \
        CASE WHEN am.amname = 'heap' THEN pg_relation_size(c.oid) / current_setting('block_size')::int END, \
        CASE WHEN c.relispartition AND EXISTS (SELECT FROM pg_partition_ancestors(c.oid) a \
                JOIN pg_partitioned_table p ON p.partrelid = a.relid JOIN pg_opclass o ON o.oid = ANY (p.partclass) \
                WHERE p.partstrat = 'h' AND o.opcname IN \
                    ('enum_ops', 'array_ops', 'record_ops', 'range_ops', 'multirange_ops', 'oid_ops')) \
            THEN (SELECT format('%I.%I', s.nspname, r.relname) FROM pg_class r JOIN pg_namespace s ON s.oid = r.relnamespace \
                WHERE r.oid = pg_partition_root(c.oid)) END \
    FROM pg_class c \
    JOIN pg_namespace n ON n.oid = c.relnamespace \
    JOIN pg_am am ON am.oid = c.relam \
    LEFT JOIN (SELECT extconfig[i] AS oid, extcondition[i] AS condition \
        FROM pg_extension, generate_subscripts(extconfig, 1) i) e ON e.oid = c.oid \
    WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND pg_relation_size(c.oid) > 0 \
        AND (c.oid = 'pg_largeobject'::regclass OR (n.nspname NOT IN ('pg_catalog', 'information_schema') \
            AND (e.oid IS NOT NULL OR NOT EXISTS (SELECT FROM pg_depend d \
                WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')))) \
        AND ($1::text[] IS NULL OR n.nspname::text = ANY ($1))";
const TYPES: &str = "SELECT t.oid, t.typname::text, t.typtype::text, \
        CASE WHEN t.typelem <> 0 AND t.typlen = -1 THEN t.typelem END, \
        CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE coalesce(r.rngsubtype, m.rngsubtype) END, \
        t.typsend <> 0 AND t.typreceive <> 0 \
    FROM pg_type t LEFT JOIN pg_range r ON r.rngtypid = t.oid LEFT JOIN pg_range m ON m.rngmultitypid = t.oid \
    WHERE t.typtype <> 'c' OR t.typrelid IN (SELECT oid FROM pg_class WHERE relkind = 'c')";

/// The source's tables with rows, of all schemas or of some.
pub(super) async fn list(
    session: &Session,
    target: MajorVersion,
    source: MajorVersion,
    schemas: Option<&[String]>,
) -> Result<Vec<Table>, MoveError> {
    let types = session
        .all(WHAT, TYPES, &[], |row| {
            let kind: String = row.try_get(2)?;
            Ok(TypeRow {
                oid: row.try_get(0)?,
                name: row.try_get(1)?,
                kind: kind.chars().next().unwrap_or_default(),
                element: row.try_get(3)?,
                base: row.try_get(4)?,
                has_binary: row.try_get(5)?,
            })
        })
        .await?;
    let types = Types::new(types, [source, target]);
    session
        .all(WHAT, TABLES, &[&schemas], |row| {
            let columns: Vec<u32> = row.try_get(2)?;
            let blocks: Option<i64> = row.try_get(5)?;
            let name: String = row.try_get(0)?;
            let root: Option<String> = row.try_get(6)?;
            Ok(Table {
                into: root.unwrap_or_else(|| name.clone()),
                name,
                columns: row.try_get(1)?,
                condition: row.try_get(3)?,
                format: types.format(&columns),
                bytes: row.try_get::<_, i64>(4)?.cast_unsigned(),
                blocks: blocks.map(i64::cast_unsigned),
            })
        })
        .await
}

/// Cuts the work into pieces for `jobs` streams, the largest first. Only what would keep one stream busy after the
/// others have ended is cut, so that most tables keep their rows' order.
pub(super) fn cut(tables: Vec<Table>, jobs: usize) -> Vec<Piece> {
    let total: u64 = tables.iter().map(|table| table.bytes).sum();
    let shares = u64::try_from(jobs.max(1) * 2).unwrap_or(u64::MAX);
    let largest = match jobs {
        ..=1 => u64::MAX,
        _ => (total / shares).max(LEAST_PIECE_BYTES),
    };
    let mut pieces = Vec::new();
    for table in tables {
        let table = Arc::new(table);
        let count = table.bytes.div_ceil(largest).max(1);
        match table.blocks {
            Some(blocks) if count > 1 && blocks >= count => {
                let step = blocks.div_ceil(count);
                for number in 0..count {
                    let first = number * step;
                    // Nobody writes in the source, but the last piece has no end all the same.
                    let end = (number + 1 < count).then_some(first + step);
                    pieces.push(Piece {
                        table: Arc::clone(&table),
                        range: Some((first, end)),
                        bytes: table.bytes / count,
                    });
                }
            }
            _ => pieces.push(Piece {
                bytes: table.bytes,
                table,
                range: None,
            }),
        }
    }
    pieces.sort_by_key(|piece| std::cmp::Reverse(piece.bytes));
    pieces
}

impl Piece {
    /// The command that reads it.
    pub(super) fn copy_out(&self) -> String {
        let Table { name, columns, .. } = &*self.table;
        let range = self.range.map(|(first, end)| match end {
            Some(end) => format!("ctid >= '({first},0)' AND ctid < '({end},0)'"),
            None => format!("ctid >= '({first},0)'"),
        });
        let condition = match (&self.table.condition, range) {
            (None, None) => {
                return format!(
                    "COPY {name}{} TO STDOUT{}",
                    list_of(columns),
                    self.options()
                );
            }
            // What extensions give begins with WHERE.
            (Some(own), None) => own.clone(),
            (None, Some(range)) => format!("WHERE {range}"),
            (Some(own), Some(range)) => format!("{own} AND {range}"),
        };
        format!(
            "COPY (SELECT {columns} FROM ONLY {name} {condition}) TO STDOUT{}",
            self.options()
        )
    }

    /// The command that writes it.
    pub(super) fn copy_in(&self) -> String {
        let Table { into, columns, .. } = &*self.table;
        format!(
            "COPY {into}{} FROM STDIN{}",
            list_of(columns),
            self.options()
        )
    }

    fn options(&self) -> &'static str {
        match self.table.format {
            Format::Binary => " (FORMAT binary)",
            Format::Text => "",
        }
    }
}

fn list_of(columns: &str) -> String {
    match columns {
        "" => String::new(),
        columns => format!(" ({columns})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str, mib: u64) -> Table {
        Table {
            name: name.to_owned(),
            into: name.to_owned(),
            columns: "a, b".to_owned(),
            condition: None,
            format: Format::Binary,
            bytes: mib << 20,
            blocks: Some(mib * 128),
        }
    }

    #[test]
    fn only_what_would_keep_one_stream_busy_is_cut() {
        let pieces = cut(vec![table("s.small", 1), table("s.large", 799)], 2);
        let texts: Vec<String> = pieces.iter().map(Piece::copy_out).collect();
        assert_eq!(pieces.iter().map(|p| p.bytes).sum::<u64>(), 800 << 20);
        assert_eq!(texts.len(), 5);
        assert_eq!(
            texts[0],
            "COPY (SELECT a, b FROM ONLY s.large WHERE ctid >= '(0,0)' AND ctid < '(25568,0)') TO STDOUT (FORMAT binary)"
        );
        assert!(
            texts[3].contains("WHERE ctid >= '(76704,0)')"),
            "{}",
            texts[3]
        );
        assert_eq!(texts[4], "COPY s.small (a, b) TO STDOUT (FORMAT binary)");
        assert_eq!(cut(vec![table("s.large", 799)], 1).len(), 1);
        assert_eq!(cut(vec![table("s.middling", 60)], 2).len(), 1);
    }

    #[test]
    fn conditions_of_extensions_hold_in_every_piece() {
        let mut owned = table("s.settings", 200);
        owned.condition = Some("WHERE NOT built_in".to_owned());
        for piece in cut(vec![owned], 2) {
            let text = piece.copy_out();
            assert!(
                text.contains("FROM ONLY s.settings WHERE NOT built_in"),
                "{text}"
            );
        }
    }
}
