//! What has to hold for a move by files. No I/O.

use std::collections::BTreeMap;

use everpoint_pgformat::{Oid, SystemIdentifier};

use super::{
    FilesPlan,
    facts::{DatabaseFacts, Facts, ServerFacts},
};
use crate::transplant::{MoveRequest, TablespaceUse, refusal::Refusal, source::SourceDatabase};

/// The first versions that mark a database as invalid while it is being removed, and let nobody into one that is.
const INVALID_DATABASES_SINCE: i32 = 150_004;
/// So many transactions may the source be ahead of the target: what recovery, its end, and freezing take. The
/// target's counter is moved on by them.
pub(super) const MAX_LEAD: u64 = 10_000;
/// So many transactions may the source be behind. Numbers wrap around at 2^31.
const MAX_LAG: u64 = 1_000_000_000;
/// Parts of a server's layout that files do not depend on.
const IRRELEVANT: [&str; 2] = ["bytes_per_wal_segment", "data_page_checksum_version"];

/// What the move is to know, and what the operator is, or every condition that does not hold.
pub(in crate::transplant) fn judge(
    facts: Facts,
    request: &MoveRequest,
    source: &SourceDatabase,
) -> Result<(FilesPlan, Vec<String>), Vec<Refusal>> {
    let mut reasons = Vec::new();
    let Facts {
        source: from,
        target: to,
        database,
    } = facts;
    same_cluster(&from, &to, &mut reasons);
    positions(&from, &to, &mut reasons);
    contents(&database, &mut reasons);
    let roles = roles(&from, &to, &database, source, &mut reasons);
    let target_tablespace = tablespaces(&from, &to, &database, request, &mut reasons);
    let directories = match (from.directory, to.directory) {
        (Ok(from), Ok(to)) if from.path == to.path => {
            reasons.push("source and target are the same server".to_owned());
            None
        }
        (Ok(from), Ok(to)) => Some((from, to)),
        (from, to) => {
            reasons.extend(from.err().into_iter().chain(to.err()));
            None
        }
    };
    match directories {
        Some((from, to)) if reasons.is_empty() => {
            let remarks = remarks(&database);
            let plan = FilesPlan {
                database: database.oid,
                source: from,
                target: to,
                own_tablespace: (database.tablespace, target_tablespace),
                tablespaces: database.other_tablespaces,
                roles,
                login_triggers: database.login_triggers,
            };
            Ok((plan, remarks))
        }
        _ => Err(named(reasons)),
    }
}

/// What speaks against a target before there is a source.
pub(in crate::transplant) fn judge_target(
    to: &ServerFacts,
    cluster: SystemIdentifier,
) -> Vec<Refusal> {
    let mut reasons = Vec::new();
    fit_target(to, cluster, &mut reasons);
    reasons.extend(to.directory.as_ref().err().cloned());
    named(reasons)
}

fn named(reasons: Vec<String>) -> Vec<Refusal> {
    reasons
        .into_iter()
        .map(|reason| Refusal::NotByFiles { reason })
        .collect()
}

fn fit_target(to: &ServerFacts, cluster: SystemIdentifier, reasons: &mut Vec<String>) {
    if cluster != to.system_identifier {
        reasons.push(format!(
            "files name roles, tablespaces and transactions by number, and the target is another cluster (system \
             identifier {}, and the database's is {cluster})",
            to.system_identifier
        ));
    }
    if to.version_num < INVALID_DATABASES_SINCE {
        reasons.push(
            "PostgreSQL before 15.4 cannot keep everybody out of a database while its files are changed"
                .to_owned(),
        );
    }
    if to.wal_level == "minimal" {
        reasons.push("the target's wal_level is minimal, so it would not log the pages".to_owned());
    }
}

fn same_cluster(from: &ServerFacts, to: &ServerFacts, reasons: &mut Vec<String>) {
    fit_target(to, from.system_identifier, reasons);
    if from.catalog_version != to.catalog_version {
        reasons.push(format!(
            "the target's catalogs are of version {}, and the database's of {}",
            to.catalog_version, from.catalog_version
        ));
    }
    for (name, value) in &from.layout {
        let theirs = to.layout.get(name);
        if !IRRELEVANT.contains(&name.as_str()) && theirs != Some(value) {
            reasons.push(format!(
                "{name} is {} in the target and {value} in the source",
                theirs.map_or("unknown", String::as_str)
            ));
        }
    }
    let checksums = |server: &ServerFacts| {
        server
            .layout
            .get("data_page_checksum_version")
            .is_some_and(|version| version != "0")
    };
    if checksums(to) && !checksums(from) {
        reasons.push(
            "the target checks page checksums, and the database is from before they were enabled"
                .to_owned(),
        );
    }
}

/// What the target has not reached yet, pages must not speak of.
fn positions(from: &ServerFacts, to: &ServerFacts, reasons: &mut Vec<String>) {
    if from.position > to.position {
        reasons.push(format!(
            "the database is as of {}, and the target's log is at {} only: it was itself restored to an earlier point",
            from.position, to.position
        ));
    }
    if from.next_xid > to.next_xid.saturating_add(MAX_LEAD) {
        reasons.push(format!(
            "the database knows transactions up to {}, and the target up to {} only: it was itself restored to an \
             earlier point",
            from.next_xid, to.next_xid
        ));
    }
    if from.next_xid.saturating_add(MAX_LAG) < to.next_xid {
        reasons.push(format!(
            "{} transactions lie between the database and the target, and their numbers wrap around soon after",
            to.next_xid - from.next_xid
        ));
    }
    let multixacts = to.next_multixact.wrapping_sub(from.next_multixact);
    if u64::from(multixacts) > MAX_LAG {
        reasons.push(format!(
            "the database's next multixact is {}, and the target's is {}",
            from.next_multixact, to.next_multixact
        ));
    }
}

fn contents(database: &DatabaseFacts, reasons: &mut Vec<String>) {
    for (what, found) in [
        (
            "subscriptions are not in the database's files",
            &database.subscriptions,
        ),
        (
            "prepared transactions are open in the source",
            &database.prepared,
        ),
        (
            "tables are stored by other access methods than heap, and whether their rows name transactions is not known",
            &database.foreign_storage,
        ),
        (
            "indexes were built by other versions of collations than this machine has, and have to be built anew",
            &database.changed_collations,
        ),
    ] {
        if !found.is_empty() {
            reasons.push(format!("{what}: {}", found.join(", ")));
        }
    }
}

fn remarks(database: &DatabaseFacts) -> Vec<String> {
    if database.role_numbers.is_empty() {
        return Vec::new();
    }
    vec![format!(
        "columns hold numbers of roles, which mean whatever role has that number now: {}",
        database.role_numbers.join(", ")
    )]
}

/// Roles that the files, or what is registered with them, name.
fn roles(
    from: &ServerFacts,
    to: &ServerFacts,
    database: &DatabaseFacts,
    source: &SourceDatabase,
    reasons: &mut Vec<String>,
) -> Vec<(Oid, String)> {
    let needed = from
        .roles
        .iter()
        .filter(|(oid, name)| database.roles.contains(*oid) || source.roles.contains(*name));
    let needed: Vec<(Oid, String)> = needed.map(|(oid, name)| (*oid, name.clone())).collect();
    let others = changed(&needed, &to.roles);
    if !others.is_empty() {
        reasons.push(format!(
            "files name roles by number, and in the target these are not what they were: {}",
            others.join(", ")
        ));
    }
    needed
}

/// Which numbers have another name by now.
pub(super) fn changed(wanted: &[(Oid, String)], found: &BTreeMap<Oid, String>) -> Vec<String> {
    let others = wanted
        .iter()
        .filter_map(|(oid, name)| match found.get(oid) {
            Some(now) if now == name => None,
            Some(now) => Some(format!("{oid} was {name} and is {now}")),
            None => Some(format!("{oid}, {name}, is gone")),
        });
    others.collect()
}

/// Returns the target's tablespace for the database.
fn tablespaces(
    from: &ServerFacts,
    to: &ServerFacts,
    database: &DatabaseFacts,
    request: &MoveRequest,
    reasons: &mut Vec<String>,
) -> Oid {
    let name = |oid: &Oid| from.tablespaces.get(oid).cloned().unwrap_or_default();
    let mut needed = database.other_tablespaces.clone();
    let own = match request.tablespaces {
        TablespaceUse::AsItWas => {
            needed.push(database.tablespace);
            database.tablespace
        }
        TablespaceUse::Default => {
            if !needed.is_empty() {
                let names: Vec<String> = needed.iter().map(name).collect();
                reasons.push(format!(
                    "tables lie in tablespaces of their own, and files cannot leave them: {}",
                    names.join(", ")
                ));
            }
            everpoint_pgformat::relation::DEFAULT_TABLESPACE
        }
    };
    let needed: Vec<(Oid, String)> = needed.iter().map(|oid| (*oid, name(oid))).collect();
    let others = changed(&needed, &to.tablespaces);
    if !others.is_empty() {
        reasons.push(format!(
            "files name tablespaces by number, and in the target these are not what they were: {}",
            others.join(", ")
        ));
    }
    own
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use everpoint_pgformat::Lsn;

    use super::{super::LoginTriggers, *};

    fn server() -> ServerFacts {
        let layout = [
            ("data_page_checksum_version", "1"),
            ("blocks_per_segment", "131072"),
        ];
        let named = |oid, name: &str| (Oid::new(oid), name.to_owned());
        ServerFacts {
            system_identifier: SystemIdentifier::new(7),
            version_num: 150_018,
            catalog_version: 202_209_061,
            layout: layout.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            wal_level: "replica".to_owned(),
            next_xid: 5_000_000_000,
            next_multixact: 10,
            position: Lsn::new(1000),
            roles: [named(10, "postgres"), named(16400, "ann")].into(),
            tablespaces: [named(1663, "pg_default")].into(),
            directory: Err("nowhere".to_owned()),
        }
    }

    fn database() -> DatabaseFacts {
        DatabaseFacts {
            oid: Oid::new(16500),
            tablespace: Oid::new(1663),
            other_tablespaces: Vec::new(),
            login_triggers: LoginTriggers::None,
            roles: BTreeSet::from([Oid::new(16400)]),
            subscriptions: Vec::new(),
            prepared: Vec::new(),
            foreign_storage: Vec::new(),
            changed_collations: Vec::new(),
            role_numbers: Vec::new(),
        }
    }

    fn said(change: impl FnOnce(&mut ServerFacts, &mut ServerFacts)) -> String {
        let (mut from, mut to) = (server(), server());
        change(&mut from, &mut to);
        let mut reasons = Vec::new();
        same_cluster(&from, &to, &mut reasons);
        positions(&from, &to, &mut reasons);
        reasons.join("\n")
    }

    #[test]
    fn a_target_of_the_same_lineage_that_has_gone_on_is_fine() {
        assert_eq!(said(|_, _| {}), "");
        let gone_on = |_: &mut ServerFacts, to: &mut ServerFacts| {
            to.next_xid += 900_000_000;
            to.next_multixact += 5;
            to.position = Lsn::new(5000);
            to.layout
                .insert("bytes_per_wal_segment".to_owned(), "1".to_owned());
        };
        assert_eq!(said(gone_on), "");
        // What recovery and freezing take.
        assert_eq!(said(|from, _| from.next_xid += MAX_LEAD), "");
        let unchecked = |_: &mut ServerFacts, to: &mut ServerFacts| {
            to.layout
                .insert("data_page_checksum_version".to_owned(), "0".to_owned());
        };
        assert_eq!(said(unchecked), "");
    }

    #[test]
    fn whatever_numbers_would_mean_something_else_is_refused() {
        type Change = fn(&mut ServerFacts, &mut ServerFacts);
        let cases: [(Change, &str); 10] = [
            (
                |_, to| to.system_identifier = SystemIdentifier::new(8),
                "another cluster",
            ),
            (|_, to| to.catalog_version += 1, "catalogs are of version"),
            (|_, to| to.version_num = 150_003, "before 15.4"),
            (|_, to| to.layout.clear(), "blocks_per_segment"),
            (
                |from, _| {
                    from.layout
                        .insert("data_page_checksum_version".to_owned(), "0".to_owned());
                },
                "checksums",
            ),
            (|_, to| to.wal_level = "minimal".to_owned(), "wal_level"),
            (
                |from, _| from.position = Lsn::new(1001),
                "restored to an earlier",
            ),
            (
                |from, _| from.next_xid += MAX_LEAD + 1,
                "restored to an earlier",
            ),
            (|from, _| from.next_xid -= MAX_LAG + 1, "wrap around"),
            (|from, _| from.next_multixact += 1, "next multixact"),
        ];
        for (change, expected) in cases {
            let text = said(change);
            assert!(text.contains(expected), "{expected}: {text}");
        }
    }

    #[test]
    fn numbers_are_compared_with_their_names() {
        let wanted =
            [(10, "a"), (11, "b"), (12, "c")].map(|(oid, n)| (Oid::new(oid), n.to_owned()));
        let found = [(10, "a"), (11, "x")].map(|(oid, n)| (Oid::new(oid), n.to_owned()));
        assert_eq!(
            changed(&wanted, &found.into()),
            ["11 was b and is x", "12, c, is gone"]
        );
    }

    #[test]
    fn what_files_do_not_hold_is_refused_by_name() {
        let mut reasons = Vec::new();
        let mut found = database();
        contents(&found, &mut reasons);
        assert_eq!(reasons, [""; 0]);
        found.subscriptions = vec!["afar".to_owned()];
        found.foreign_storage = vec!["t (columnar)".to_owned()];
        contents(&found, &mut reasons);
        let text = reasons.join("\n");
        assert!(
            text.contains("afar") && text.contains("t (columnar)"),
            "{text}"
        );
    }
}
