//! The hidden database: made, filled by us alone, and removed.

use std::time::Duration;

use everpoint_instance::grant::{quote_identifier, quote_literal};

use super::{
    error::MoveError,
    files,
    name::OperationId,
    plan::MovePlan,
    server::{Server, Session},
    source::Locale,
};

const END_POLL: Duration = Duration::from_millis(20);
/// How long sessions that were told to end may take.
const END_PATIENCE: Duration = Duration::from_secs(30);

/// Makes the hidden database as the source's was made. Others cannot connect to it from its first moment on: it
/// takes no sessions but superusers', and nobody has the right.
pub(super) async fn create(session: &Session, plan: &MovePlan) -> Result<(), MoveError> {
    let name = quote_identifier(&plan.hidden);
    let sql = format!(
        "CREATE DATABASE {name} TEMPLATE template0 CONNECTION LIMIT 0 {}",
        options(&plan.locale, plan.target_version.get())
    );
    session.run("create the database", &sql).await?;
    hide(session, plan).await
}

/// Takes everybody's right to connect, and says what the database is.
pub(super) async fn hide(session: &Session, plan: &MovePlan) -> Result<(), MoveError> {
    let name = quote_identifier(&plan.hidden);
    let sql = format!(
        "REVOKE ALL ON DATABASE {name} FROM PUBLIC; COMMENT ON DATABASE {name} IS {}",
        quote_literal(&plan.operation().marker())
    );
    session.run("hide the database", &sql).await
}

pub(super) fn options(locale: &Locale, version: u16) -> String {
    let mut text = format!(
        "ENCODING {} LC_COLLATE {} LC_CTYPE {} LOCALE_PROVIDER {}",
        quote_literal(&locale.encoding),
        quote_literal(&locale.collate),
        quote_literal(&locale.ctype),
        locale.provider
    );
    if let Some(name) = &locale.locale {
        let option = match locale.provider.as_str() {
            "builtin" => "BUILTIN_LOCALE",
            _ => "ICU_LOCALE",
        };
        text.push_str(&format!(" {option} {}", quote_literal(name)));
    }
    if let Some(rules) = locale.icu_rules.as_ref().filter(|_| version >= 16) {
        text.push_str(&format!(" ICU_RULES {}", quote_literal(rules)));
    }
    text.push_str(&format!(
        " TABLESPACE {}",
        quote_identifier(&locale.tablespace)
    ));
    text
}

/// Makes the roles that are missing: they cannot log in and have no password, rights or memberships.
pub(super) async fn create_roles(
    session: &Session,
    operation: OperationId,
    roles: &[String],
) -> Result<(), MoveError> {
    if roles.is_empty() {
        return Ok(());
    }
    let marker = quote_literal(&operation.marker());
    let mut sql = "BEGIN".to_owned();
    for role in roles {
        let role = quote_identifier(role);
        sql.push_str(&format!(
            "; CREATE ROLE {role} NOLOGIN; COMMENT ON ROLE {role} IS {marker}"
        ));
    }
    sql.push_str("; COMMIT");
    let created = session.run("create roles", &sql).await;
    if created.is_err() {
        session.run("create roles", "ROLLBACK").await?;
    }
    created
}

/// Removes whatever an operation has made on the server and has not registered. Does nothing when there is nothing.
pub(super) async fn remove(server: &Server, operation: OperationId) -> Result<(), MoveError> {
    let session = server.connect_any().await?;
    end_sessions(&session, operation).await?;
    for name in [operation.hidden_name(), operation.vessel_name()] {
        drop_database(server, &session, &name).await?;
    }
    files::remove_orphans(&session, operation).await?;
    drop_roles(&session, operation).await
}

/// Removes what is left of an operation whose database has its name: the vessel.
pub(super) async fn remove_vessel(
    server: &Server,
    operation: OperationId,
) -> Result<(), MoveError> {
    let session = server.connect_any().await?;
    drop_database(server, &session, &operation.vessel_name()).await
}

/// Drops the roles that an operation has made and not registered.
pub(super) async fn drop_roles(session: &Session, operation: OperationId) -> Result<(), MoveError> {
    let roles: Vec<String> = session
        .column(
            "find roles",
            "SELECT quote_ident(rolname) FROM pg_roles WHERE shobj_description(oid, 'pg_authid') = $1",
            &[&operation.marker()],
        )
        .await?;
    for role in roles {
        session
            .run("drop a role", &format!("DROP ROLE {role}"))
            .await?;
    }
    Ok(())
}

/// Ends the operation's own sessions: one of them may still be making the database.
pub(super) async fn end_sessions(
    session: &Session,
    operation: OperationId,
) -> Result<(), MoveError> {
    end_all(session, "application_name", &operation.hidden_name())
        .await
        .map(drop)
}

/// Ends whatever is in a database, and waits until it is gone.
pub(super) async fn end_sessions_in(session: &Session, name: &str) -> Result<(), MoveError> {
    match end_all(session, "datname", name).await? {
        0 => Ok(()),
        left => Err(MoveError::InUse {
            database: name.to_owned(),
            users: format!("{left} sessions that do not end"),
        }),
    }
}

/// Returns how many are left when patience ends.
async fn end_all(session: &Session, column: &str, value: &str) -> Result<i64, MoveError> {
    let sql = format!(
        "WITH sessions AS MATERIALIZED (SELECT pid FROM pg_stat_activity \
            WHERE {column} = $1 AND pid <> pg_backend_pid()) \
        SELECT count(pg_terminate_backend(pid)) FROM sessions"
    );
    let begun = tokio::time::Instant::now();
    loop {
        let left: i64 = session.value("end sessions", &sql, &[&value]).await?;
        if left == 0 || begun.elapsed() > END_PATIENCE {
            return Ok(left);
        }
        tokio::time::sleep(END_POLL).await;
    }
}

async fn drop_database(server: &Server, session: &Session, name: &str) -> Result<(), MoveError> {
    let quoted = quote_identifier(name);
    let what = "drop the hidden database";
    // A database with subscriptions cannot be dropped. These were made disabled, and own no slot elsewhere.
    let subscriptions: Vec<String> = session
        .column(
            what,
            "SELECT quote_ident(subname) FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid \
                WHERE d.datname = $1 AND d.datconnlimit <> -2",
            &[&name],
        )
        .await?;
    if !subscriptions.is_empty() {
        let inside = server.connect(name).await?;
        for subscription in subscriptions {
            let sql = format!(
                "ALTER SUBSCRIPTION {subscription} SET (slot_name = NONE); DROP SUBSCRIPTION {subscription}"
            );
            inside.run(what, &sql).await?;
        }
    }
    let sql = format!("DROP DATABASE IF EXISTS {quoted} WITH (FORCE)");
    session.run(what, &sql).await
}
