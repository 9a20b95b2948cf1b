//! The plan of a move: what is done under which names, and what is to be known before.

use std::fmt;

use everpoint_instance::PgBinaries;
use everpoint_pgformat::{ByteCount, MajorVersion};
use jiff::Timestamp;

use super::{
    Existing, Method, MissingRoles, MoveRequest, OpenSessions, TablespaceUse,
    files::{self, FilesPlan, facts::Facts},
    name::{DatabaseName, OperationId, kept_name},
    refusal::{Refusal, Refusals},
    source::{Locale, Properties, SourceDatabase},
    target::TargetServer,
};

/// A target needs more than the tables: log of what is written, and files of sorts for indexes. With less than so
/// many times the database's size it is said.
const COMFORTABLE_ROOM: u64 = 2;

/// What a move does.
#[derive(Clone, Debug)]
pub struct MovePlan {
    /// What was asked for.
    pub request: MoveRequest,
    /// The name until everything is checked.
    pub hidden: String,
    /// What the living database is renamed to.
    pub kept: Option<String>,
    /// Encoding and locale, and the tablespace, which is the target's.
    pub locale: Locale,
    /// What is given together with the name.
    pub properties: Properties,
    /// Roles to be created.
    pub new_roles: Vec<String>,
    /// The source's version.
    pub source_version: MajorVersion,
    /// The target's version.
    pub target_version: MajorVersion,
    /// About how large it is.
    pub size: ByteCount,
    /// What is to be known before.
    pub remarks: Vec<String>,
    /// What a move by files is to know besides.
    pub files: Option<FilesPlan>,
}

impl MovePlan {
    /// The operation.
    pub fn operation(&self) -> OperationId {
        self.request.operation
    }
}

/// Makes the plan, or says everything that speaks against it.
pub(super) fn make(
    request: MoveRequest,
    source: SourceDatabase,
    target: &TargetServer,
    facts: Option<Facts>,
    now: Timestamp,
) -> Result<MovePlan, Refusals> {
    let mut refusals = Vec::new();
    let mut remarks = source.remarks.clone();
    refuse_server(source.version, target, &mut refusals);
    if request.method == Method::Copy {
        remarks.extend(source.remarks_of_copies.iter().cloned());
        refuse_programs(
            &request.binaries,
            source.version,
            target.version,
            &mut refusals,
        );
    }
    let wanted = (&request.new_name, request.existing, request.sessions);
    let kept = refuse_name(wanted, target, now, &mut refusals, &mut remarks);
    let missing = |name: &&String| !target.roles.contains(name);
    let new_roles: Vec<String> = source.roles.iter().filter(missing).cloned().collect();
    // To files, a role of the same name is not the same role.
    let creatable = request.method == Method::Copy;
    if creatable && !new_roles.is_empty() && request.missing_roles == MissingRoles::Refuse {
        refusals.push(Refusal::MissingRoles {
            roles: new_roles.clone(),
        });
    }
    judge_extensions(&request, &source, target, &mut refusals, &mut remarks);
    let locale = place(&request, &source, target, &mut refusals, &mut remarks);
    let files = match facts.map(|facts| files::conditions::judge(facts, &request, &source)) {
        None => None,
        Some(Ok((files, more))) => {
            remarks.extend(more);
            let needed = files.room(source.size);
            if let Some(available) = target.room.get(&locale.tablespace)
                && (source.size.get()..needed.get()).contains(&available.get())
            {
                refusals.push(Refusal::NoRoom {
                    tablespace: locale.tablespace.clone(),
                    available: *available,
                    needed,
                });
            }
            Some(files)
        }
        Some(Err(more)) => {
            refusals.extend(more);
            None
        }
    };
    let mut properties = source.properties;
    properties.settings.retain(|setting| {
        let known = setting.name.contains('.')
            || target.settings.contains(&setting.name.to_ascii_lowercase());
        if !known {
            remarks.push(format!(
                "the target knows no setting `{}`: it is left out",
                setting.name
            ));
        }
        known
    });
    for replica in target
        .replicas
        .iter()
        .filter(|replica| replica.replayed.is_none())
    {
        remarks.push(format!(
            "nobody streams from slot `{}`: it is waited for only when it is named as a replica",
            replica.name
        ));
    }
    if !refusals.is_empty() {
        return Err(Refusals(refusals));
    }
    Ok(MovePlan {
        hidden: request.operation.hidden_name(),
        kept,
        locale,
        properties,
        new_roles,
        source_version: source.version,
        target_version: target.version,
        size: source.size,
        remarks,
        files,
        request,
    })
}

/// What can be refused before there is a source.
pub(super) fn check_target(
    new_name: &DatabaseName,
    existing: Existing,
    sessions: OpenSessions,
    (source_version, size): (MajorVersion, ByteCount),
    target: &TargetServer,
    now: Timestamp,
) -> Result<(), Refusals> {
    let mut refusals = Vec::new();
    refuse_server(source_version, target, &mut refusals);
    // In which tablespace it will lie is not known yet.
    if let Some((tablespace, available)) = target.room.iter().max_by_key(|(_, room)| room.get())
        && available.get() < size.get()
    {
        refusals.push(Refusal::NoRoom {
            tablespace: tablespace.clone(),
            available: *available,
            needed: size,
        });
    }
    let wanted = (new_name, existing, sessions);
    refuse_name(wanted, target, now, &mut refusals, &mut Vec::new());
    match refusals.is_empty() {
        true => Ok(()),
        false => Err(Refusals(refusals)),
    }
}

pub(super) fn refuse_server(
    source_version: MajorVersion,
    target: &TargetServer,
    refusals: &mut Vec<Refusal>,
) {
    if !target.superuser {
        refusals.push(Refusal::NoSuperuser {
            role: target.role.clone(),
        });
    }
    if target.in_recovery {
        refusals.push(Refusal::Standby);
    }
    if target.version < source_version {
        refusals.push(Refusal::OlderTarget {
            target: target.version,
            source_version,
        });
    }
}

pub(super) fn refuse_programs(
    binaries: &PgBinaries,
    source: MajorVersion,
    target: MajorVersion,
    refusals: &mut Vec<Refusal>,
) {
    // A target that is too old is refused as such.
    let fitting = source..=target.max(source);
    if !fitting.contains(&binaries.version()) {
        refusals.push(Refusal::Programs {
            found: binaries.version(),
            at_least: source,
            at_most: target,
        });
    }
}

/// Returns the name that the living database is kept under.
fn refuse_name(
    (new_name, existing, sessions): (&DatabaseName, Existing, OpenSessions),
    target: &TargetServer,
    now: Timestamp,
    refusals: &mut Vec<Refusal>,
    remarks: &mut Vec<String>,
) -> Option<String> {
    let name = new_name.as_str();
    let exists = target.databases.iter().any(|database| database == name);
    let owned = || name.to_owned();
    match (exists, existing) {
        (true, Existing::Refuse) => refusals.push(Refusal::NameTaken { name: owned() }),
        (false, Existing::Replace) => refusals.push(Refusal::NothingToReplace { name: owned() }),
        (false, Existing::Refuse) => {}
        (true, Existing::Replace) => {
            let kept = kept_name(name, now);
            if target.databases.contains(&kept) {
                refusals.push(Refusal::NameTaken { name: kept.clone() });
            }
            let users = &target.users;
            if !users.prepared.is_empty() {
                refusals.push(Refusal::PreparedTransactions {
                    name: owned(),
                    gids: users.prepared.clone(),
                });
            }
            match sessions {
                _ if users.sessions.is_empty() => {}
                OpenSessions::Refuse => refusals.push(Refusal::OpenSessions {
                    name: owned(),
                    sessions: users.sessions.clone(),
                }),
                OpenSessions::End => {
                    remarks.push(format!(
                        "sessions will be ended: {}",
                        users.sessions.join("; ")
                    ));
                }
            }
            for (what, bound) in [
                ("logical slots", &users.slots),
                ("subscriptions", &users.subscriptions),
            ] {
                if !bound.is_empty() {
                    remarks.push(format!("{what} stay with `{kept}`: {}", bound.join(", ")));
                }
            }
            return Some(kept);
        }
    }
    None
}

fn judge_extensions(
    request: &MoveRequest,
    source: &SourceDatabase,
    target: &TargetServer,
    refusals: &mut Vec<Refusal>,
    remarks: &mut Vec<String>,
) {
    let mut missing = Vec::new();
    for (name, version) in &source.extensions {
        let versions = target.extensions.get(name);
        match versions.and_then(|versions| versions.first()) {
            None => missing.push(format!("{name} {version}")),
            Some(made) if made != version && request.method == Method::Files => {
                remarks.push(format!(
                    "extension `{name}` stays at version {version}, and the target makes {made}: ALTER EXTENSION … UPDATE"
                ));
            }
            Some(made) if made != version => remarks.push(format!(
                "extension `{name}` is of version {version} and will be of the target's, {made}"
            )),
            Some(_) => {}
        }
    }
    if !missing.is_empty() {
        refusals.push(Refusal::MissingExtensions {
            extensions: missing,
        });
    }
}

/// Where in the target it goes, and how it is made there.
fn place(
    request: &MoveRequest,
    source: &SourceDatabase,
    target: &TargetServer,
    refusals: &mut Vec<Refusal>,
    remarks: &mut Vec<String>,
) -> Locale {
    let mut locale = source.locale.clone();
    match request.tablespaces {
        TablespaceUse::Default => "pg_default".clone_into(&mut locale.tablespace),
        TablespaceUse::AsItWas => {
            let wanted = source.tablespaces.iter().chain([&source.locale.tablespace]);
            let missing = wanted.filter(|name| !target.tablespaces.contains_key(*name));
            let missing: Vec<String> = missing.cloned().collect();
            if !missing.is_empty() {
                refusals.push(Refusal::MissingTablespaces {
                    tablespaces: missing,
                });
            }
        }
    }
    if let Some(fault) = &target.locale_fault {
        refusals.push(Refusal::Locale {
            fault: fault.clone(),
        });
    }
    if !target.collation_faults.is_empty() {
        refusals.push(Refusal::Collations {
            collations: target.collation_faults.clone(),
        });
    }
    if let (Some(had), Some(has)) = (&source.locale.version, &target.locale_version)
        && had != has
    {
        if request.method == Method::Files {
            refusals.push(Refusal::NotByFiles {
                reason: format!(
                    "indexes were built by version {had} of the locale's data, and the target has {has}"
                ),
            });
        }
        remarks.push(format!(
            "text was sorted by version {had} of the locale's data, and will be by version {has}: indexes are built \
             anew, and partitions by ranges of text may refuse rows"
        ));
    }
    if let Some(available) = target.room.get(&locale.tablespace) {
        if available.get() < source.size.get() {
            refusals.push(Refusal::NoRoom {
                tablespace: locale.tablespace.clone(),
                available: *available,
                needed: source.size,
            });
        } else if available.get() < source.size.get().saturating_mul(COMFORTABLE_ROOM) {
            remarks.push(format!(
                "tablespace {} has room for {available} bytes only, and log and sorts need some besides",
                locale.tablespace
            ));
        }
    }
    locale
}

impl fmt::Display for MovePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let request = &self.request;
        writeln!(
            f,
            "move `{}` ({} bytes, PostgreSQL {}) to `{}` (PostgreSQL {})",
            request.source_database,
            self.size,
            self.source_version,
            request.new_name,
            self.target_version
        )?;
        writeln!(f, "  filled as   {}", self.hidden)?;
        let locale = &self.locale;
        write!(f, "  made with   {}, {}", locale.encoding, locale.provider)?;
        match &locale.locale {
            Some(name) => write!(f, " {name}")?,
            None => write!(f, " {}/{}", locale.collate, locale.ctype)?,
        }
        writeln!(f, ", tablespace {}", locale.tablespace)?;
        writeln!(
            f,
            "  method      {}, {} at a time",
            match request.method {
                Method::Copy => "copy",
                Method::Files => "files",
            },
            request.jobs
        )?;
        if !self.new_roles.is_empty() {
            writeln!(f, "  new roles   {}", self.new_roles.join(", "))?;
        }
        writeln!(f, "  given to    {}", self.properties.owner)?;
        if let Some(kept) = &self.kept {
            writeln!(f, "  replaces    `{}`, kept as `{kept}`", request.new_name)?;
        }
        for remark in &self.remarks {
            writeln!(f, "  note: {remark}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, path::PathBuf};

    use super::{super::target::Users, *};

    fn target(room: u64) -> TargetServer {
        let version = MajorVersion::try_from(17).unwrap();
        TargetServer {
            version,
            role: "postgres".to_owned(),
            superuser: true,
            in_recovery: false,
            databases: vec!["taken".to_owned()],
            roles: Vec::new(),
            tablespaces: BTreeMap::new(),
            settings: Vec::new(),
            extensions: BTreeMap::new(),
            room: BTreeMap::from([("pg_default".to_owned(), ByteCount::new(room))]),
            locale_fault: None,
            locale_version: None,
            collation_faults: Vec::new(),
            users: Users::default(),
            replicas: Vec::new(),
        }
    }

    #[test]
    fn too_little_room_is_refused_with_what_there_is_and_what_is_needed() {
        let name: DatabaseName = "back".parse().unwrap();
        let version = MajorVersion::try_from(17).unwrap();
        let check = |room| {
            let coming = (version, ByteCount::new(1000));
            check_target(
                &name,
                Existing::Refuse,
                OpenSessions::Refuse,
                coming,
                &target(room),
                Timestamp::UNIX_EPOCH,
            )
        };
        assert_eq!(check(1000), Ok(()));
        let refused = check(999).unwrap_err().to_string();
        for part in ["pg_default", "999", "1000", "Free space"] {
            assert!(refused.contains(part), "{part} in {refused}");
        }
    }

    #[test]
    fn a_scratch_server_on_the_same_file_system_takes_its_room_first() {
        let directory = tempfile::tempdir().unwrap();
        let elsewhere = PathBuf::from("/proc");
        let mut target = target(1000);
        target.room.insert("far".to_owned(), ByteCount::new(1000));
        target
            .tablespaces
            .insert("pg_default".to_owned(), directory.path().to_owned());
        target.tablespaces.insert("far".to_owned(), elsewhere);
        target.set_aside(&directory.path().join("not/yet"), ByteCount::new(300));
        assert_eq!(target.room["pg_default"].get(), 700);
        assert_eq!(target.room["far"].get(), 1000);
    }
}
