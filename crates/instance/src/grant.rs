//! The least rights that backups need, as SQL.

/// Functions that a backup calls. On a server as installed, everybody may call the later ones already.
const FUNCTIONS: [&str; 8] = [
    "pg_backup_start(text, boolean)",
    "pg_backup_stop(boolean)",
    "pg_switch_wal()",
    "pg_create_restore_point(text)",
    "pg_control_system()",
    "pg_control_checkpoint()",
    "pg_control_recovery()",
    "pg_notify(text, text)",
];

/// Roles of PostgreSQL that let a role see settings such as `data_directory`, and who else is connected.
const MEMBERSHIPS: [&str; 2] = ["pg_read_all_settings", "pg_read_all_stats"];

/// SQL that makes `role` one that may take backups and receive WAL, and nothing more. To be run by a
/// superuser in `database`, which is where the role then connects. May be run again; on PostgreSQL 15 to 18.
///
/// It sets no password: with `pg_hba.conf` saying so, a local role needs none.
pub fn grant_script(role: &str, database: &str) -> String {
    let name = quote_identifier(role);
    let literal = quote_literal(role);
    let database = quote_identifier(database);
    let body = format!(
        "BEGIN\n    \
             IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = {literal}) THEN\n        \
                 CREATE ROLE {name};\n    \
             END IF;\n\
         END"
    );
    let tag = dollar_tag(&body);
    // No name in a comment: it may hold a line break.
    let mut script = format!(
        "-- Rights for Everpoint. Run as a superuser, in the database that the role is to connect to.\n\
         -- Give the role a password by \\password in psql, unless pg_hba.conf lets it in without.\n\
         DO {tag}\n{body}\n{tag};\n\
         ALTER ROLE {name} LOGIN REPLICATION;\n\
         GRANT CONNECT ON DATABASE {database} TO {name};\n"
    );
    for membership in MEMBERSHIPS {
        script.push_str(&format!("GRANT {membership} TO {name};\n"));
    }
    for function in FUNCTIONS {
        script.push_str(&format!(
            "GRANT EXECUTE ON FUNCTION pg_catalog.{function} TO {name};\n"
        ));
    }
    script
}

/// A dollar quote that does not occur in `body`.
fn dollar_tag(body: &str) -> String {
    let mut tag = "$everpoint$".to_owned();
    while body.contains(&tag) {
        tag.insert(1, '_');
    }
    tag
}

/// A name as SQL, in double quotes.
pub fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as SQL, whatever `standard_conforming_strings` says.
pub fn quote_literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') {
        format!("E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_out_of_the_script() {
        assert_eq!(quote_identifier("a\"b"), "\"a\"\"b\"");
        assert_eq!(quote_literal("a'b\\c"), "E'a''b\\\\c'");
        let script = grant_script("x$everpoint$\n--\"; y", "postgres");
        assert!(script.contains("DO $_everpoint$\n"), "{script}");
        assert!(
            script.contains("CREATE ROLE \"x$everpoint$\n--\"\"; y\";"),
            "{script}"
        );
        assert!(
            script
                .lines()
                .take(2)
                .all(|line| line.starts_with("-- ") && !line.contains('x'))
        );
    }
}
