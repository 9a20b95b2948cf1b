//! The last step: the hidden database takes its name, and all that goes with it, in one transaction.

use std::time::Duration;

use everpoint_instance::grant::{quote_identifier, quote_literal};
use everpoint_pgformat::Oid;
use serde::{Deserialize, Serialize};

use super::{
    Control, Event, OpenSessions,
    error::MoveError,
    name::OperationId,
    plan::MovePlan,
    server::{Server, Session},
    source::{Properties, Setting},
    target::Users,
};

const POLL: Duration = Duration::from_millis(50);
/// How often sessions in the way are named.
const NAMED_EVERY: Duration = Duration::from_secs(5);
/// How long sessions may be in the way before registering is given up, when they are not to be ended.
const SESSION_PATIENCE: Duration = Duration::from_secs(60);
/// Attempts, each of which PostgreSQL itself waits five seconds for sessions in.
const ATTEMPTS: usize = 6;
const WHAT: &str = "register the database";
const LOOK: &str = "look for the database";
/// `ERRCODE_OBJECT_IN_USE`, `ERRCODE_DUPLICATE_DATABASE`.
const IN_USE: &str = "55006";
const DUPLICATE: &str = "42P04";

/// Settings whose value is a list of names, each quoted on its own (`GUC_LIST_QUOTE`,
/// `src/backend/utils/misc/guc_tables.c`).
const LISTS: [&str; 7] = [
    "local_preload_libraries",
    "oauth_validator_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
];

/// What registering does, whole: it stands in the journal, so that a later start can do it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// The operation.
    pub operation: OperationId,
    /// The database, so that it is known whatever it is called. Absent in what older versions wrote.
    #[serde(default)]
    pub database: Option<Oid>,
    /// The name it has.
    pub hidden: String,
    /// The name it gets.
    pub name: String,
    /// What the living database of that name is renamed to.
    pub kept: Option<String>,
    /// What is given with the name.
    pub properties: Properties,
    /// Roles that were made for it.
    pub new_roles: Vec<String>,
}

impl Registration {
    pub(super) fn of(plan: &MovePlan, database: Oid) -> Self {
        Self {
            operation: plan.operation(),
            database: Some(database),
            hidden: plan.hidden.clone(),
            name: plan.request.new_name.as_str().to_owned(),
            kept: plan.kept.clone(),
            properties: plan.properties.clone(),
            new_roles: plan.new_roles.clone(),
        }
    }

    /// What must succeed, in this order, before the renames.
    fn properties(&self) -> String {
        let name = quote_identifier(&self.hidden);
        let Properties {
            owner,
            connection_limit,
            is_template,
            grants,
            comment,
            ..
        } = &self.properties;
        let owner_quoted = quote_identifier(owner);
        let comment = comment
            .as_ref()
            .map_or("NULL".to_owned(), |text| quote_literal(text));
        let mut sql = format!(
            "ALTER DATABASE {name} OWNER TO {owner_quoted}; \
             REVOKE ALL ON DATABASE {name} FROM PUBLIC, {owner_quoted}; \
             COMMENT ON DATABASE {name} IS {comment}"
        );
        for grant in grants {
            let grantee = grant
                .grantee
                .as_ref()
                .map_or("PUBLIC".to_owned(), |role| quote_identifier(role));
            let option = if grant.grantable {
                " WITH GRANT OPTION"
            } else {
                ""
            };
            let right = format!(
                "GRANT {} ON DATABASE {name} TO {grantee}{option}",
                grant.privilege
            );
            match grant.grantor == *owner {
                true => sql.push_str(&format!("; {right}")),
                false => sql.push_str(&format!(
                    "; SET LOCAL ROLE {}; {right}; RESET ROLE",
                    quote_identifier(&grant.grantor)
                )),
            }
        }
        for role in &self.new_roles {
            sql.push_str(&format!(
                "; COMMENT ON ROLE {} IS NULL",
                quote_identifier(role)
            ));
        }
        sql.push_str(&format!(
            "; ALTER DATABASE {name} WITH CONNECTION LIMIT {connection_limit} IS_TEMPLATE {is_template}"
        ));
        sql
    }

    /// What may fail alone, since an older version's settings or a label's provider may be unknown here: what, and how.
    fn extras(&self) -> Vec<(String, String)> {
        let name = quote_identifier(&self.hidden);
        let mut extras = Vec::new();
        for setting in &self.properties.settings {
            let place = match &setting.role {
                None => format!("ALTER DATABASE {name}"),
                Some(role) => format!("ALTER ROLE {} IN DATABASE {name}", quote_identifier(role)),
            };
            let sql = format!("{place} SET {}", assignment(setting));
            extras.push((format!("setting `{}`", setting.name), sql));
        }
        for (provider, label) in &self.properties.labels {
            let sql = format!(
                "SECURITY LABEL FOR {} ON DATABASE {name} IS {}",
                quote_identifier(provider),
                quote_literal(label)
            );
            extras.push((format!("security label of `{provider}`"), sql));
        }
        extras
    }

    /// The two renames. PostgreSQL waits up to five seconds in each for sessions to leave, and lets none in
    /// meanwhile.
    fn renames(&self) -> String {
        let (hidden, name) = (quote_identifier(&self.hidden), quote_identifier(&self.name));
        let rename = format!("ALTER DATABASE {hidden} RENAME TO {name}");
        match &self.kept {
            None => rename,
            Some(kept) => format!(
                "ALTER DATABASE {name} RENAME TO {}; {rename}",
                quote_identifier(kept)
            ),
        }
    }
}

/// A setting's name and value as `SET` takes them.
fn assignment(setting: &Setting) -> String {
    // A name may have several parts, each an identifier.
    let parts: Vec<String> = setting.name.split('.').map(quote_identifier).collect();
    let name = parts.join(".");
    if !LISTS.contains(&setting.name.to_ascii_lowercase().as_str()) {
        return format!("{name} TO {}", quote_literal(&setting.value));
    }
    let items: Vec<String> = list(&setting.value)
        .iter()
        .map(|item| quote_literal(item))
        .collect();
    match items.is_empty() {
        true => format!("{name} TO ''"),
        false => format!("{name} TO {}", items.join(", ")),
    }
}

/// The names in a list, as `SplitGUCList` finds them: separated by commas, in double quotes where needed.
fn list(value: &str) -> Vec<String> {
    let mut items = Vec::new();
    let mut item = String::new();
    let mut quoted = false;
    let mut begun = false;
    let mut characters = value.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                item.push('"');
            }
            '"' => {
                quoted = !quoted;
                begun = true;
            }
            ',' if !quoted => {
                items.push(std::mem::take(&mut item));
                begun = true;
            }
            space if !quoted && space.is_whitespace() => {}
            other => {
                item.push(other);
                begun = true;
            }
        }
    }
    if begun {
        items.push(item);
    }
    items
}

/// Registers, waiting for sessions in the living database to end, or ending them. Returns what could not be given.
pub(super) async fn register(
    server: &Server,
    registration: &Registration,
    sessions: OpenSessions,
    control: &Control,
) -> Result<Vec<String>, MoveError> {
    let watcher = server.connect_any().await?;
    let mut failure = None;
    for _ in 0..ATTEMPTS {
        if registration.kept.is_some() && sessions == OpenSessions::Refuse {
            wait_for_sessions(&watcher, &registration.name, control).await?;
        }
        let session = server.connect_any().await?;
        let attempt = attempt(&session, registration);
        let result = match (&registration.kept, sessions) {
            // While the rename waits, no new session comes in; so ending those there are is enough.
            (Some(_), OpenSessions::End) => {
                tokio::select! {
                    result = attempt => result,
                    error = end_sessions(&watcher, &registration.name, control) => Err(error),
                }
            }
            _ => attempt.await,
        };
        match result {
            Ok(lost) => return Ok(lost),
            Err(error) if error.code() == Some(DUPLICATE) => {
                return Err(MoveError::NameTaken {
                    name: taken(&watcher, registration).await?,
                });
            }
            Err(error) if error.code() == Some(IN_USE) => failure = Some(error),
            Err(error) => return Err(error),
        }
    }
    let users = Users::read(&watcher, &registration.name).await?;
    let named = [users.sessions, users.prepared].concat();
    match failure {
        Some(error) if named.is_empty() => Err(error),
        _ => Err(MoveError::InUse {
            database: registration.name.clone(),
            users: named.join("; "),
        }),
    }
}

/// How a registration stands. Names and rights come in one transaction, so the name tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// The database has its hidden name still.
    Hidden,
    /// It got its name. Somebody may have given it another one since.
    Registered,
    /// It is not there.
    Gone,
}

/// How a registration stands on the server.
pub(super) async fn standing(
    session: &Session,
    registration: &Registration,
) -> Result<Standing, MoveError> {
    let hidden = &registration.hidden;
    let Some(database) = registration.database else {
        // Written by an older version: the hidden name alone tells.
        let sql = "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)";
        let is_hidden: bool = session.value(LOOK, sql, &[hidden]).await?;
        return Ok(match is_hidden {
            true => Standing::Hidden,
            false => Standing::Registered,
        });
    };
    let sql = "SELECT datname::text FROM pg_database WHERE oid = $1";
    let names: Vec<String> = session.column(LOOK, sql, &[&database.get()]).await?;
    Ok(match names.first() {
        None => Standing::Gone,
        Some(name) if name == hidden => Standing::Hidden,
        Some(_) => Standing::Registered,
    })
}

/// The OID of the hidden database.
pub(super) async fn hidden_oid(session: &Session, hidden: &str) -> Result<Oid, MoveError> {
    let sql = "SELECT oid FROM pg_database WHERE datname = $1";
    let oid: u32 = session.value(LOOK, sql, &[&hidden]).await?;
    Ok(Oid::new(oid))
}

/// One transaction. It is on disk, and where replication is synchronous also there, when this returns.
async fn attempt(session: &Session, registration: &Registration) -> Result<Vec<String>, MoveError> {
    let mut lost = Vec::new();
    session.run(WHAT, "BEGIN").await?;
    session.run(WHAT, &registration.properties()).await?;
    for (what, sql) in registration.extras() {
        session.run(WHAT, "SAVEPOINT extra").await?;
        match session.run(WHAT, &sql).await {
            Ok(()) => session.run(WHAT, "RELEASE extra").await?,
            Err(MoveError::Statement { message, .. }) => {
                session.run(WHAT, "ROLLBACK TO extra").await?;
                lost.push(format!("{what}: {message}"));
            }
            Err(error) => return Err(error),
        }
    }
    session.run(WHAT, &registration.renames()).await?;
    session.run(WHAT, "COMMIT").await?;
    Ok(lost)
}

/// Which of the names it is that somebody else has taken.
async fn taken(watcher: &Session, registration: &Registration) -> Result<String, MoveError> {
    let Some(kept) = &registration.kept else {
        return Ok(registration.name.clone());
    };
    let sql = "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)";
    let is_kept: bool = watcher.value(WHAT, sql, &[kept]).await?;
    Ok(if is_kept { kept } else { &registration.name }.clone())
}

async fn wait_for_sessions(
    watcher: &Session,
    name: &str,
    control: &Control,
) -> Result<(), MoveError> {
    let begun = tokio::time::Instant::now();
    let mut named: Option<tokio::time::Instant> = None;
    loop {
        let users = Users::read(watcher, name).await?;
        let in_the_way = [users.sessions, users.prepared].concat();
        if in_the_way.is_empty() {
            return Ok(());
        }
        if control.progress.is_cancelled() {
            return Err(MoveError::Cancelled);
        }
        if begun.elapsed() > SESSION_PATIENCE {
            return Err(MoveError::InUse {
                database: name.to_owned(),
                users: in_the_way.join("; "),
            });
        }
        if named.is_none_or(|last| last.elapsed() >= NAMED_EVERY) {
            control.say(Event::OpenSessions(in_the_way));
            named = Some(tokio::time::Instant::now());
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Ends sessions in the living database until dropped. Returns only when that cannot be done.
async fn end_sessions(watcher: &Session, name: &str, control: &Control) -> MoveError {
    // Materialized, since a condition of the planner's choice comes first: all sessions of the server might end.
    let sql = "WITH sessions AS MATERIALIZED (SELECT pid, \
            format('%s %s (%s)', backend_type, pid, coalesce(usename, '-')) AS shown \
            FROM pg_stat_activity WHERE datname = $1) \
        SELECT shown FROM sessions WHERE pg_terminate_backend(pid)";
    loop {
        match watcher
            .column::<String>("end sessions", sql, &[&name])
            .await
        {
            Ok(ended) if ended.is_empty() => {}
            Ok(ended) => control.say(Event::SessionsEnded(ended)),
            Err(error) => return error,
        }
        tokio::time::sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_names_are_quoted_name_by_name() {
        let set = |name: &str, value: &str| {
            assignment(&Setting {
                role: None,
                name: name.to_owned(),
                value: value.to_owned(),
            })
        };
        assert_eq!(
            set("search_path", "\"$user\", public, \"a, \"\"b\""),
            "\"search_path\" TO '$user', 'public', 'a, \"b'"
        );
        assert_eq!(set("search_path", ""), "\"search_path\" TO ''");
        assert_eq!(set("search_path", "\"\""), "\"search_path\" TO ''");
        assert_eq!(set("work_mem", "4MB"), "\"work_mem\" TO '4MB'");
        assert_eq!(
            set("app.tenant", "it's, one"),
            "\"app\".\"tenant\" TO 'it''s, one'"
        );
    }
}
