//! Where the catalog lies: a file of SQLite, or a PostgreSQL database that several servers share.

use std::{fmt, os::unix::fs::OpenOptionsExt, path::PathBuf, str::FromStr, time::Duration};

use sqlx::{
    AnyPool, ConnectOptions,
    any::{AnyConnectOptions, AnyPoolOptions, install_default_drivers},
};
use url::Url;

use super::CatalogError;

/// Sessions to the catalog at once.
const SESSIONS: u32 = 8;
/// How long one may be waited for.
const SESSION_PATIENCE: Duration = Duration::from_secs(10);

/// What every session to SQLite begins with. What was acknowledged outlives a power failure.
const SQLITE: &[&str] = &[
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA busy_timeout = 10000",
    "PRAGMA foreign_keys = ON",
];
/// What every session to PostgreSQL begins with: a server that stalls must not keep the others from theirs.
const POSTGRES: &[&str] = &[
    "SET statement_timeout = '30s'",
    "SET lock_timeout = '15s'",
    "SET idle_in_transaction_session_timeout = '60s'",
    "SET client_connection_check_interval = '10s'",
];

/// Where the catalog lies.
#[derive(Clone, PartialEq, Eq)]
pub enum CatalogAddress {
    /// A file of SQLite, for one server alone.
    File(PathBuf),
    /// A database of PostgreSQL, which servers may share.
    Postgres(Url),
}

/// The text is no address of a catalog.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CatalogAddressError {
    /// It is no URL.
    #[error(
        "`{found}` is no address of a catalog. Write postgres://USER@HOST:PORT/DATABASE, or leave it out for a file in the state directory"
    )]
    Syntax {
        /// As given.
        found: String,
    },
    /// It has a password, which would be seen.
    #[error(
        "the catalog's address holds a password. Put it into catalog_password_file, PGPASSWORD or a password file (PGPASSFILE)"
    )]
    Password,
}

impl CatalogAddress {
    /// Reads `postgres://…`. A password may not be in it.
    ///
    /// # Errors
    /// [`CatalogAddressError`].
    pub fn postgres(text: &str) -> Result<Self, CatalogAddressError> {
        let syntax = || CatalogAddressError::Syntax {
            found: text.to_owned(),
        };
        let url = Url::parse(text);
        let secret = |url: &Url| {
            url.password().is_some() || url.query_pairs().any(|(name, _)| name == "password")
        };
        match url {
            Ok(url) if secret(&url) => Err(CatalogAddressError::Password),
            Ok(url) if matches!(url.scheme(), "postgres" | "postgresql") => Ok(Self::Postgres(url)),
            _ => Err(syntax()),
        }
    }

    /// The same with a password.
    #[must_use]
    pub fn with_password(mut self, password: &str) -> Self {
        if let Self::Postgres(url) = &mut self {
            // In the query and not before the host, which an address of a socket does not have.
            url.query_pairs_mut().append_pair("password", password);
        }
        self
    }

    pub(super) async fn connect(&self) -> Result<AnyPool, CatalogError> {
        install_default_drivers();
        let error = |source| CatalogError::Open {
            place: self.to_string(),
            source,
        };
        let (url, first) = match self {
            Self::File(path) => {
                // It holds the signing key: nobody else may read it, whoever made the directory. SQLite gives its
                // other files the same mode.
                std::fs::OpenOptions::new()
                    .create(true)
                    .append(true)
                    .mode(0o600)
                    .open(path)
                    .map_err(|source| error(source.into()))?;
                let mut url = Url::from_file_path(path).map_err(|()| {
                    let text = "its path is not absolute";
                    error(sqlx::Error::Configuration(text.into()))
                })?;
                // SQLite's addresses are written like those of files.
                url.set_query(Some("mode=rw"));
                (url.as_str().replacen("file:", "sqlite:", 1), SQLITE)
            }
            Self::Postgres(url) => (url.to_string(), POSTGRES),
        };
        // Every step would log its statements; what fails is an error that is logged where it is handled.
        let options = AnyConnectOptions::from_str(&url).map_err(error)?;
        let options = options.disable_statement_logging();
        AnyPoolOptions::new()
            .max_connections(SESSIONS)
            .acquire_timeout(SESSION_PATIENCE)
            .after_connect(move |session, _| {
                Box::pin(async move {
                    for statement in first {
                        sqlx::query(*statement).execute(&mut *session).await?;
                    }
                    Ok(())
                })
            })
            .connect_with(options)
            .await
            .map_err(error)
    }
}

impl fmt::Display for CatalogAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            // Without the query, where the password is.
            Self::Postgres(url) => {
                let mut shown = url.clone();
                shown.set_query(None);
                shown.fmt(f)
            }
        }
    }
}

impl fmt::Debug for CatalogAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_refused_in_addresses_and_not_shown() {
        let read = CatalogAddress::postgres;
        for text in ["postgres://u:p@h/d", "postgres://u@h/d?password=p"] {
            assert_eq!(read(text).unwrap_err(), CatalogAddressError::Password);
        }
        for text in ["", "mysql://h/d", "/var/lib/catalog.db"] {
            let error = read(text).unwrap_err();
            assert!(
                matches!(error, CatalogAddressError::Syntax { .. }),
                "{text}"
            );
        }
        let address = read("postgres://u@h:5/d?sslmode=verify-full").unwrap();
        let address = address.with_password("hid&den");
        assert_eq!(format!("{address:?}"), "postgres://u@h:5/d");
        let CatalogAddress::Postgres(url) = address else {
            panic!()
        };
        let password = url.query_pairs().find(|(name, _)| name == "password");
        assert_eq!(password.unwrap().1, "hid&den");
    }
}
