//! The plan of a move of tables: what goes where under which names, what is left out, and what is to be known before.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use everpoint_instance::grant::{quote_identifier, quote_literal};
use everpoint_pgformat::{ByteCount, MajorVersion};

use super::{
    TablesRequest,
    loosen::Loosened,
    name::{TableName, derive},
    register::ForeignKey,
    source::{Item, ItemKind, NeededBy, SourceTables, refuse},
    target::{Answer, TargetDatabase},
};
use crate::transplant::{
    MissingRoles, TablespaceUse,
    name::OperationId,
    plan::{refuse_programs, refuse_server},
    refusal::{Refusal, Refusals},
};

/// From this version on a partitioned table's foreign key can be made without looking at its rows
/// (`ATAddForeignKeyConstraint`, `src/backend/commands/tablecmds.c`).
const NOT_VALID_ON_PARTITIONED: u16 = 18;

/// What a move of tables does.
#[derive(Clone, Debug)]
pub struct TablesPlan {
    /// What was asked for.
    pub request: TablesRequest,
    /// Everything that has a name, and what it is called then.
    pub placed: Vec<Placed>,
    /// Schemas that are made.
    pub new_schemas: Vec<String>,
    /// Roles to be created.
    pub new_roles: Vec<String>,
    /// Foreign keys that are made in the last step.
    pub foreign_keys: Vec<ForeignKey>,
    /// The source's version.
    pub source_version: MajorVersion,
    /// The target's version.
    pub target_version: MajorVersion,
    /// About how large the tables are, with indexes.
    pub size: ByteCount,
    /// What is to be known before.
    pub remarks: Vec<String>,
    /// The target database's tablespace.
    pub(super) tablespace: String,
    /// The source's encoding.
    pub(super) encoding: String,
    /// The schemas that tables go to, in the order of their hidden ones.
    pub(super) schemas: Vec<String>,
    /// What makes the new schemas.
    pub(super) schema_statements: Vec<String>,
    /// What is taken away from the tables in the source, since it is not restored.
    pub(super) left_out: Vec<String>,
    /// Whether rows are published as they are written, and therefore must be written twice.
    pub(super) published: Published,
}

/// Whether somebody would be sent rows as they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Published {
    No,
    /// A publication publishes all tables, hidden ones too.
    Yes,
}

/// Something that has a name in a schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// What it is.
    pub kind: ItemKind,
    /// Its name in the source.
    pub from: TableName,
    /// Its name in the target.
    pub to: TableName,
    /// Whether it was asked for, and is not a part of what was.
    pub is_root: bool,
    pub(super) oid: u32,
    /// Whether it goes where its table goes by itself.
    pub(super) follows: bool,
    /// `pg_class.relkind` of tables.
    pub(super) relkind: char,
    /// Whether it is an unlogged table.
    pub(super) is_unlogged: bool,
    /// Which hidden schema it is filled in.
    pub(super) hidden: usize,
}

impl TablesPlan {
    /// The operation.
    pub fn operation(&self) -> OperationId {
        self.request.operation
    }

    /// The hidden schemas, in the order of those that tables go to.
    pub(super) fn hidden(&self) -> Vec<String> {
        let operation = self.operation();
        (0..self.schemas.len())
            .map(|number| operation.hidden_schema(number))
            .collect()
    }

    /// The tables that were asked for, by their new names.
    pub fn roots(&self) -> impl Iterator<Item = &Placed> {
        self.placed.iter().filter(|placed| placed.is_root)
    }

    /// What has another name than it had, besides what was asked for.
    pub fn renamed(&self) -> impl Iterator<Item = &Placed> {
        self.placed
            .iter()
            .filter(|placed| !placed.is_root && placed.from.table != placed.to.table)
    }
}

/// What both servers say.
pub(super) struct Facts {
    pub(super) source: SourceTables,
    pub(super) loosened: Loosened,
    pub(super) target: TargetDatabase,
    /// To the source's needs.
    pub(super) answers: Vec<Answer>,
    /// Which tables are there that the source's foreign keys point to.
    pub(super) referenced: Vec<bool>,
}

/// Makes the plan, or says everything that speaks against it.
pub(super) fn make(request: TablesRequest, facts: Facts) -> Result<TablesPlan, Refusals> {
    let mut refusals = Vec::new();
    let Facts {
        source,
        loosened,
        target,
        ..
    } = &facts;
    let mut remarks = [loosened.remarks.as_slice(), &source.remarks].concat();
    refuse_server(source.version, &target.server, &mut refusals);
    let version = target.server.version;
    refuse_programs(&request.binaries, source.version, version, &mut refusals);
    let needed = judge_needs(&facts, &mut refusals, &mut remarks);
    let mut items = source.items.clone();
    items.extend(needed.sequences);
    let (schemas, placed) = place(&request, &items, target, &mut refusals);
    let (new_schemas, schema_statements, schema_roles) =
        make_schemas(&schemas, source, target, &mut refusals);
    let missing = |name: &&String| !target.server.roles.contains(name);
    let roles: BTreeSet<String> = source.roles.iter().cloned().chain(schema_roles).collect();
    let new_roles: Vec<String> = roles.iter().filter(missing).cloned().collect();
    if !new_roles.is_empty() && request.missing_roles == MissingRoles::Refuse {
        refusals.push(Refusal::MissingRoles {
            roles: new_roles.clone(),
        });
    }
    refuse_place(&request, source, target, &mut refusals);
    let (foreign_keys, mut left_out) = foreign_keys(&facts, &placed, &mut remarks);
    left_out.extend(needed.drops);
    for detached in &loosened.detached {
        if let Some(found) = placed.iter().find(|placed| placed.oid == detached.oid) {
            remarks.push(format!(
                "{} was a partition, and comes as a table of its own. To make it one again: ALTER TABLE {} ATTACH \
                 PARTITION {} {}",
                found.from, detached.parent, found.to, detached.bound
            ));
        }
    }
    let published = publications(&schemas, target, &mut remarks);
    if source.collation != target.collation {
        remarks.push(format!(
            "text was sorted by {}, and is by {} there: indexes are built anew, and partitions by ranges of text may \
             refuse rows",
            source.collation, target.collation
        ));
    }
    refuse(refusals)?;
    Ok(TablesPlan {
        placed,
        new_schemas,
        new_roles,
        foreign_keys,
        source_version: source.version,
        target_version: version,
        size: source.size,
        remarks,
        tablespace: target.tablespace.clone(),
        encoding: source.encoding.clone(),
        schemas,
        schema_statements,
        left_out,
        published,
        request,
    })
}

/// What becomes of needs that the target does not fulfil.
struct Needed {
    /// Sequences that come along, since they belong to nobody and are not there.
    sequences: Vec<Item>,
    /// What cannot be made, as statements for the source.
    drops: BTreeSet<String>,
}

fn judge_needs(facts: &Facts, refusals: &mut Vec<Refusal>, remarks: &mut Vec<String>) -> Needed {
    let mut needed = Needed {
        sequences: Vec::new(),
        drops: BTreeSet::new(),
    };
    let (mut missing, mut other, mut shared) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (need, answer) in facts.source.needs.iter().zip(&facts.answers) {
        let shown = match &need.extension {
            Some(extension) => format!("{} {} of extension {extension}", need.kind, need.identity),
            None => format!("{} {}", need.kind, need.identity),
        };
        match (answer, &need.by, &need.free_sequence) {
            (Answer::Has, NeededBy::Table, Some(_)) => {
                shared.insert(need.identity.clone());
            }
            (Answer::Has, ..) => {}
            (Answer::Lacks, NeededBy::Table, Some((oid, name))) => {
                if !needed.sequences.iter().any(|item| item.oid == *oid) {
                    needed.sequences.push(Item {
                        kind: ItemKind::Sequence,
                        oid: *oid,
                        name: name.clone(),
                        table: *oid,
                        is_root: false,
                        relkind: 'S',
                        is_unlogged: false,
                    });
                }
            }
            (_, NeededBy::Optional { shown: what, drop }, _) => {
                needed.drops.insert(drop.clone());
                let place = drop.rsplit_once(" ON ").map_or("", |(_, place)| place);
                remarks.push(format!(
                    "{what} of {place} is left out: the database lacks {shown}"
                ));
            }
            (Answer::Lacks, NeededBy::Table, None) => {
                missing.insert(shown);
            }
            (Answer::Differs, NeededBy::Table, _) => {
                other.insert(shown);
            }
        }
    }
    if !shared.is_empty() {
        let shared: Vec<String> = shared.into_iter().collect();
        remarks.push(format!(
            "values come from sequences that no column owns, which stay as they are there: {}",
            shared.join(", ")
        ));
    }
    if !missing.is_empty() {
        refusals.push(Refusal::MissingObjects {
            database: facts.target.name.clone(),
            objects: missing.into_iter().collect(),
        });
    }
    if !other.is_empty() {
        refusals.push(Refusal::OtherObjects {
            objects: other.into_iter().collect(),
        });
    }
    needed
}

/// Gives everything its place. Returns the schemas, too.
fn place(
    request: &TablesRequest,
    items: &[Item],
    target: &TargetDatabase,
    refusals: &mut Vec<Refusal>,
) -> (Vec<String>, Vec<Placed>) {
    let new_name = request.place.new_name.as_ref();
    let mut names = Names::new(target);
    let mut schemas: Vec<String> = Vec::new();
    let mut placed: Vec<Placed> = Vec::new();
    let mut tables: BTreeMap<u32, (TableName, TableName)> = BTreeMap::new();
    let root = items.iter().find(|item| item.is_root);
    for item in items {
        let schema = new_name.map_or(&item.name.schema, |name| &name.schema);
        let name = match (item.kind, new_name, item.is_root) {
            (ItemKind::Table, Some(new), true) => names.fixed(new, refusals),
            (ItemKind::Table, None, _) => names.fixed(&item.name, refusals),
            // A partition is named after the table that was asked for, or has a name of its own.
            (ItemKind::Table, Some(new), false) => {
                let old = root.map_or("", |root| &root.name.table);
                names.derived(item, schema, old, &new.table)
            }
            _ => match tables.get(&item.table) {
                Some((from, to)) => names.derived(item, schema, &from.table, &to.table),
                None => names.derived(item, schema, "", ""),
            },
        };
        let to = TableName {
            schema: schema.clone(),
            table: name,
        };
        if item.kind == ItemKind::Table {
            tables.insert(item.oid, (item.name.clone(), to.clone()));
        }
        let hidden = schemas.iter().position(|known| known == schema);
        let hidden = hidden.unwrap_or_else(|| {
            schemas.push(schema.clone());
            schemas.len() - 1
        });
        placed.push(Placed {
            kind: item.kind,
            from: item.name.clone(),
            to,
            is_root: item.is_root,
            oid: item.oid,
            follows: tables.contains_key(&item.table)
                && matches!(item.kind, ItemKind::Index | ItemKind::Sequence),
            relkind: item.relkind,
            is_unlogged: item.is_unlogged,
            hidden,
        });
    }
    (schemas, placed)
}

/// Names that are taken in the schemas that tables go to.
struct Names<'a> {
    target: &'a TargetDatabase,
    relations: BTreeMap<String, BTreeSet<String>>,
    statistics: BTreeMap<String, BTreeSet<String>>,
}

impl<'a> Names<'a> {
    fn new(target: &'a TargetDatabase) -> Self {
        Self {
            target,
            relations: target.taken.clone(),
            statistics: target.statistics.clone(),
        }
    }

    /// A name that must be free.
    fn fixed(&mut self, name: &TableName, refusals: &mut Vec<Refusal>) -> String {
        let taken = self.relations.entry(name.schema.clone()).or_default();
        if !taken.insert(name.table.clone()) || self.target.has(name) {
            refusals.push(Refusal::TableTaken {
                table: name.to_string(),
            });
        }
        name.table.clone()
    }

    /// A name that may get a number.
    fn derived(&mut self, item: &Item, schema: &str, old: &str, new: &str) -> String {
        let all = match item.kind {
            ItemKind::Statistics => &mut self.statistics,
            _ => &mut self.relations,
        };
        let taken = all.entry(schema.to_owned()).or_default();
        derive(&item.name.table, old, new, taken)
    }
}

/// Schemas that the target lacks: their names, what makes them as they were, and roles that this needs.
fn make_schemas(
    schemas: &[String],
    source: &SourceTables,
    target: &TargetDatabase,
    refusals: &mut Vec<Refusal>,
) -> (Vec<String>, Vec<String>, Vec<String>) {
    let (mut names, mut statements, mut roles) = (Vec::new(), Vec::new(), Vec::new());
    for schema in schemas {
        if schema.starts_with("pg_")
            || schema.starts_with("everpoint_restoring_")
            || schema == "information_schema"
        {
            refusals.push(Refusal::ReservedSchema {
                schema: schema.clone(),
            });
            continue;
        }
        if target.schemas.contains(schema) {
            continue;
        }
        let Some(definition) = source.schemas.get(schema) else {
            refusals.push(Refusal::NoSchema {
                schema: schema.clone(),
            });
            continue;
        };
        let name = quote_identifier(schema);
        statements.push(format!(
            "CREATE SCHEMA {name} AUTHORIZATION {}",
            quote_identifier(&definition.owner)
        ));
        if let Some(comment) = &definition.comment {
            statements.push(format!(
                "COMMENT ON SCHEMA {name} IS {}",
                quote_literal(comment)
            ));
        }
        statements.extend(definition.grants.iter().cloned());
        roles.push(definition.owner.clone());
        roles.extend(definition.grantees.iter().cloned());
        names.push(schema.clone());
    }
    (names, statements, roles)
}

fn refuse_place(
    request: &TablesRequest,
    source: &SourceTables,
    target: &TargetDatabase,
    refusals: &mut Vec<Refusal>,
) {
    if request.tablespaces == TablespaceUse::AsItWas {
        let missing = source
            .tablespaces
            .iter()
            .filter(|name| !target.server.tablespaces.contains_key(*name));
        let missing: Vec<String> = missing.cloned().collect();
        if !missing.is_empty() {
            refusals.push(Refusal::MissingTablespaces {
                tablespaces: missing,
            });
        }
    }
    if let Some(available) = target.server.room.get(&target.tablespace)
        && available.get() < source.size.get()
    {
        refusals.push(Refusal::NoRoom {
            tablespace: target.tablespace.clone(),
            available: *available,
            needed: source.size,
        });
    }
}

/// Foreign keys to tables that are not moved: those that are made at the end; and what takes all of them away in the
/// source.
fn foreign_keys(
    facts: &Facts,
    placed: &[Placed],
    remarks: &mut Vec<String>,
) -> (Vec<ForeignKey>, Vec<String>) {
    let (mut keys, mut drops) = (Vec::new(), Vec::new());
    for (key, there) in facts.source.foreign_keys.iter().zip(&facts.referenced) {
        let Some(table) = placed.iter().find(|placed| placed.oid == key.table) else {
            continue;
        };
        drops.push(format!(
            "ALTER TABLE {} DROP CONSTRAINT {}",
            table.from.quoted(),
            quote_identifier(&key.name)
        ));
        if !there {
            remarks.push(format!(
                "foreign key `{}` of {} is left out: there is no table {}",
                key.name, table.to, key.referenced
            ));
            continue;
        }
        let partitioned = table.relkind == 'p';
        // One that is not enforced is never validated.
        let later = key.validated
            && (!partitioned || facts.target.server.version.get() >= NOT_VALID_ON_PARTITIONED);
        let suffix = if later { " NOT VALID" } else { "" };
        keys.push(ForeignKey {
            table: table.to.clone(),
            name: key.name.clone(),
            definition: format!("{}{suffix}", key.definition),
            validate_later: later,
        });
    }
    (keys, drops)
}

fn publications(
    schemas: &[String],
    target: &TargetDatabase,
    remarks: &mut Vec<String>,
) -> Published {
    let concerned = target.publications.iter().filter(|(_, schema)| {
        schema
            .as_ref()
            .is_none_or(|schema| schemas.contains(schema))
    });
    let names: BTreeSet<&str> = concerned.map(|(name, _)| name.as_str()).collect();
    if !names.is_empty() {
        let names: Vec<&str> = names.into_iter().collect();
        remarks.push(format!(
            "publications will publish what changes in these tables from then on, and subscribers need them: {}",
            names.join(", ")
        ));
    }
    let all = target
        .publications
        .iter()
        .any(|(_, schema)| schema.is_none());
    match all && target.is_decoded {
        true => Published::Yes,
        false => Published::No,
    }
}

impl fmt::Display for TablesPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let request = &self.request;
        writeln!(
            f,
            "move {} tables of `{}` ({} bytes, PostgreSQL {}) into `{}` (PostgreSQL {})",
            self.roots().count(),
            request.source_database,
            self.size,
            self.source_version,
            request.place.database,
            self.target_version
        )?;
        for placed in self.roots() {
            writeln!(f, "  table       {} as {}", placed.from, placed.to)?;
        }
        for placed in self.renamed() {
            writeln!(f, "  {:<11} {} as {}", placed.kind, placed.from, placed.to)?;
        }
        for schema in &self.new_schemas {
            writeln!(f, "  new schema  {schema}")?;
        }
        if !self.new_roles.is_empty() {
            writeln!(f, "  new roles   {}", self.new_roles.join(", "))?;
        }
        for remark in &self.remarks {
            writeln!(f, "  note: {remark}")?;
        }
        Ok(())
    }
}

impl fmt::Display for ItemKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Table => "table",
            Self::Index => "index",
            Self::Sequence => "sequence",
            Self::Statistics => "statistics",
        })
    }
}
