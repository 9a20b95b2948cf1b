//! Passwords from the environment and from password files.
//!
//! Source: "The Password File" of libpq's documentation, `passwordFromFile` in `fe-connect.c`.

use std::{
    env, fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::PathBuf,
};

use zeroize::Zeroizing;

use super::{endpoint::Endpoint, spec::ConnectionSpec};

/// The password for a session: the specification's own, else `PGPASSWORD`, else a line of the password
/// file (`passfile`, else `PGPASSFILE`, else `~/.pgpass`). `database` is `replication` for replication.
pub(crate) fn password_for(
    spec: &ConnectionSpec,
    endpoint: &Endpoint,
    database: &str,
    user: &str,
) -> Option<Zeroizing<String>> {
    if let Some(password) = spec.password() {
        return Some(Zeroizing::new(password.to_owned()));
    }
    if let Ok(password) = env::var("PGPASSWORD")
        && !password.is_empty()
    {
        return Some(Zeroizing::new(password));
    }
    let path = spec
        .passfile()
        .map(PathBuf::from)
        .or_else(|| env::var_os("PGPASSFILE").map(PathBuf::from))
        .or_else(|| env::home_dir().map(|home| home.join(".pgpass")))?;
    let text = read(&path)?;
    let port = endpoint.port().to_string();
    lookup(&text, [endpoint.passfile_host(), &port, database, user])
}

/// The file's text, unless there is none or others may read it, which libpq refuses too.
fn read(path: &PathBuf) -> Option<Zeroizing<String>> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(path = %path.display(), %error, "password file cannot be read");
            }
            return None;
        }
    };
    if !metadata.is_file() || metadata.permissions().mode() & 0o077 != 0 {
        tracing::warn!(
            path = %path.display(),
            mode = format!("{:o}", metadata.mode() & 0o7777),
            "password file is not used: others may read it. Mend it by chmod 0600"
        );
        return None;
    }
    match fs::read_to_string(path) {
        Ok(text) => Some(Zeroizing::new(text)),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "password file cannot be read");
            None
        }
    }
}

/// The password of the first line whose four fields match; `*` matches everything.
fn lookup(text: &str, wanted: [&str; 4]) -> Option<Zeroizing<String>> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .find_map(|line| {
            let mut rest = line;
            for value in wanted {
                let (field, after) = field(rest)?;
                if field.as_str() != "*" && field.as_str() != value {
                    return None;
                }
                rest = after?;
            }
            let (password, _) = field(rest)?;
            (!password.is_empty()).then_some(password)
        })
}

/// Takes a field off the front of a line: a backslash escapes `:` and itself. The rest is `None` at the
/// end of the line.
fn field(line: &str) -> Option<(Zeroizing<String>, Option<&str>)> {
    let mut field = Zeroizing::new(String::new());
    let mut characters = line.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => field.extend(characters.next().map(|(_, escaped)| escaped)),
            ':' => return Some((field, line.get(at + 1..))),
            other => field.push(other),
        }
    }
    Some((field, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_matching_line_gives_the_password() {
        let text = "# comment\nother:5432:*:*:wrong\n/run/p\\:g:5432:*:al\\\\ice:a\\:b\n*:*:replication:*:rep\n";
        let find = |host, database, user| {
            lookup(text, [host, "5432", database, user]).map(|found| found.to_string())
        };
        assert_eq!(find("/run/p:g", "app", "al\\ice").as_deref(), Some("a:b"));
        assert_eq!(find("db", "replication", "bob").as_deref(), Some("rep"));
        assert_eq!(find("db", "app", "bob"), None);
    }

    #[test]
    fn password_files_that_others_may_read_are_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pass");
        fs::write(&path, "*:*:*:*:secret\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(read(&path).is_none());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let spec: ConnectionSpec = format!("host=db passfile={}", path.display())
            .parse()
            .unwrap();
        let endpoint = spec.endpoints().first().unwrap();
        let password = password_for(&spec, endpoint, "app", "bob").unwrap();
        assert_eq!(*password, "secret");
    }
}
