//! The service's configuration: one TOML file, of which every key is known.

mod identity;
mod secret;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::{SignedDuration, civil::Weekday};
use serde::Deserialize;
use url::Url;
use zeroize::Zeroizing;

pub use identity::{Claim, IdentityConfig, OidcAlgorithm, OidcConfig, OidcKeys};
pub use secret::{RepositorySecret, SecretError};

use crate::{
    catalog::{CatalogAddress, CatalogAddressError},
    policy::RetentionDays,
    scheduler::Limits,
};

/// The largest file that is read.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The configuration.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where to listen for HTTPS.
    pub listen: SocketAddr,
    /// How clients reach it, such as `https://backup.example.com:8443`.
    #[serde(deserialize_with = "url")]
    pub public_url: Url,
    /// Where the catalog, the audit log and generated certificates lie.
    pub state_directory: PathBuf,
    /// A PostgreSQL database as the catalog, `postgres://USER@HOST:PORT/DATABASE`, which servers may share; a file
    /// in the state directory when not given.
    pub catalog: Option<String>,
    /// A file whose first line is the password for it.
    pub catalog_password_file: Option<PathBuf>,
    /// What resources say of where they are.
    #[serde(default = "local")]
    pub location: String,
    /// The resource group that instances are in of which nothing else is said.
    #[serde(default = "group")]
    pub resource_group: String,
    /// Where backups lie.
    pub repository: RepositoryConfig,
    /// A certificate of one's own.
    pub tls: Option<TlsConfig>,
    /// When and how backups are taken.
    #[serde(default)]
    pub backups: BackupConfig,
    /// How databases are restored.
    #[serde(default)]
    pub restores: RestoreConfig,
    /// What single instances need, by their names.
    #[serde(default)]
    pub instances: BTreeMap<String, InstanceConfig>,
    /// Limits of requests.
    #[serde(default)]
    pub limits: LimitConfig,
    /// Who else may sign people in.
    #[serde(default)]
    pub identity: IdentityConfig,
    /// What is logged, as `EVERPOINT_LOG` has it, which goes before it: `info`, `debug`, `everpoint_server=trace`.
    pub log: Option<String>,
}

/// Where backups lie, and what opens them.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepositoryConfig {
    /// Its address: `file:///path` or an absolute path.
    pub url: String,
    /// What opens it; exactly one.
    #[serde(flatten)]
    pub secret: RepositorySecret,
}

/// A certificate of one's own, as PEM files.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// The server's certificate, and those between it and its authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// When and how backups are taken.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BackupConfig {
    /// The day of full backups, in UTC.
    pub full_day: Day,
    /// When their window opens, in UTC.
    pub full_from: jiff::civil::Time,
    /// How long it is open.
    pub full_window: SignedDuration,
    /// How often differentials are taken.
    pub differential_every: SignedDuration,
    /// The longest that received log waits before it is stored.
    pub log_every: SignedDuration,
    /// Backups at once.
    pub at_once: u16,
    /// Threads of one backup; half the processors when not given.
    pub jobs: Option<u16>,
    /// The short-term retention of databases that are new.
    pub retention_days: u8,
    /// How long a backup waits for the log it needs.
    pub log_wait: SignedDuration,
    /// How long running backups may go on after the service was told to end.
    pub grace: SignedDuration,
}

impl BackupConfig {
    /// The short-term retention of databases that are new.
    pub fn retention(&self) -> RetentionDays {
        // It was checked.
        RetentionDays::of_living(self.retention_days.into()).unwrap_or(RetentionDays::DEFAULT)
    }
}

impl Default for BackupConfig {
    fn default() -> Self {
        Self {
            full_day: Day::Sunday,
            full_from: jiff::civil::Time::midnight(),
            full_window: SignedDuration::from_hours(6),
            differential_every: SignedDuration::from_hours(12),
            log_every: SignedDuration::from_mins(5),
            at_once: 2,
            jobs: None,
            retention_days: RetentionDays::DEFAULT.get(),
            log_wait: SignedDuration::from_mins(10),
            grace: SignedDuration::from_secs(30),
        }
    }
}

/// How databases are restored.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RestoreConfig {
    /// Restores at once; the rest is queued.
    pub at_once: u16,
    /// Threads of one restore; half the processors when not given.
    pub jobs: Option<u16>,
    /// Where scratch servers keep their files; `scratch` in the state directory when not given.
    pub scratch: Option<PathBuf>,
    /// How long replicas are waited for; until they have the database when not given.
    pub replica_wait: Option<SignedDuration>,
}

impl Default for RestoreConfig {
    fn default() -> Self {
        Self {
            at_once: 2,
            jobs: None,
            scratch: None,
            replica_wait: None,
        }
    }
}

/// What one instance needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InstanceConfig {
    /// A file whose first line says how its server is reached as a superuser.
    pub admin_connection_file: Option<PathBuf>,
    /// An environment variable that says so.
    pub admin_connection_environment: Option<String>,
    /// Where PostgreSQL's programs of its version are, when not in the usual places.
    pub bin_directory: Option<PathBuf>,
    /// The resource group it is in; `resource_group` when not given.
    pub resource_group: Option<String>,
    /// The subscription that is in; the service's own when not given.
    pub subscription: Option<uuid::Uuid>,
}

impl InstanceConfig {
    /// How its server is reached as a superuser, as a connection string; `None` when nothing is said of it.
    ///
    /// # Errors
    /// When what is said cannot be read.
    pub fn admin_connection(&self) -> Result<Option<Zeroizing<String>>, SecretError> {
        secret::connection(
            self.admin_connection_file.as_deref(),
            self.admin_connection_environment.as_deref(),
        )
    }
}

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Day {
    Monday,
    Tuesday,
    Wednesday,
    Thursday,
    Friday,
    Saturday,
    Sunday,
}

impl From<Day> for Weekday {
    fn from(day: Day) -> Self {
        match day {
            Day::Monday => Self::Monday,
            Day::Tuesday => Self::Tuesday,
            Day::Wednesday => Self::Wednesday,
            Day::Thursday => Self::Thursday,
            Day::Friday => Self::Friday,
            Day::Saturday => Self::Saturday,
            Day::Sunday => Self::Sunday,
        }
    }
}

/// Limits of requests.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitConfig {
    /// Connections at once.
    pub connections: u16,
    /// The largest body, in KiB.
    pub body_kib: u16,
    /// Requests a second of one address, on average.
    pub requests_per_second: u16,
    /// Requests of one address that may come at once after a pause.
    pub burst: u16,
}

impl Default for LimitConfig {
    fn default() -> Self {
        Self {
            connections: 512,
            body_kib: 64,
            requests_per_second: 400,
            burst: 1600,
        }
    }
}

fn url<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Url, D::Error> {
    let text = String::deserialize(deserializer)?;
    Url::parse(&text).map_err(serde::de::Error::custom)
}

fn local() -> String {
    "local".to_owned()
}

fn group() -> String {
    "default".to_owned()
}

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration {} cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no such file.
    #[error("the configuration is not understood")]
    Syntax(#[from] Box<toml::de::Error>),
    /// The catalog's address.
    #[error(transparent)]
    Catalog(#[from] CatalogAddressError),
    /// A value may not be so.
    #[error("`{key}` is {found}. {wanted}")]
    Value {
        /// Its key.
        key: &'static str,
        /// As given.
        found: String,
        /// What it may be.
        wanted: &'static str,
    },
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let error = |source| ConfigError::Read {
            path: path.to_owned(),
            source,
        };
        let mut text = String::new();
        let file = std::fs::File::open(path).map_err(error)?;
        std::io::Read::read_to_string(&mut std::io::Read::take(file, MAX_FILE_BYTES), &mut text)
            .map_err(error)?;
        Self::parse(&text)
    }

    /// Reads and checks a text.
    ///
    /// # Errors
    /// [`ConfigError::Syntax`], [`ConfigError::Value`].
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(Box::new)?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.shared_catalog()?.is_none() && self.catalog_password_file.is_some() {
            return Err(ConfigError::Value {
                key: "catalog_password_file",
                found: "given without a catalog".to_owned(),
                wanted: "It goes with catalog = \"postgres://…\"",
            });
        }
        if let Some(oidc) = &self.identity.oidc {
            oidc.check()?;
        }
        if !self.state_directory.is_absolute() {
            return Err(ConfigError::Value {
                key: "state_directory",
                found: format!("`{}`", self.state_directory.display()),
                wanted: "It is an absolute path",
            });
        }
        let backups = &self.backups;
        let within = |key, found: SignedDuration, from_s: i64, to_s: i64, wanted| match (from_s
            ..=to_s)
            .contains(&found.as_secs())
        {
            true => Ok(()),
            false => Err(ConfigError::Value {
                key,
                found: format!("{found:#}"),
                wanted,
            }),
        };
        const WEEK_S: i64 = 7 * 86_400;
        let week = "It is 1 minute to 7 days";
        within("backups.full_window", backups.full_window, 60, WEEK_S, week)?;
        within(
            "backups.differential_every",
            backups.differential_every,
            60,
            WEEK_S,
            week,
        )?;
        within(
            "backups.log_every",
            backups.log_every,
            1,
            600,
            "It is 1 second to 10 minutes",
        )?;
        within(
            "backups.log_wait",
            backups.log_wait,
            1,
            86_400,
            "It is 1 second to 1 day",
        )?;
        within(
            "backups.grace",
            backups.grace,
            0,
            86_400,
            "It is at most 1 day",
        )?;
        if RetentionDays::of_living(backups.retention_days.into()).is_err() {
            return Err(ConfigError::Value {
                key: "backups.retention_days",
                found: backups.retention_days.to_string(),
                wanted: "It is 1 to 35",
            });
        }
        within(
            "restores.replica_wait",
            self.restores.replica_wait.unwrap_or_default(),
            0,
            WEEK_S,
            "It is at most 7 days",
        )?;
        for (name, instance) in &self.instances {
            if name.parse::<everpoint_repository::InstanceName>().is_err() {
                return Err(ConfigError::Value {
                    key: "instances",
                    found: format!("`{name}`"),
                    wanted: "It is the name of an instance, as `everpoint instance list` has it",
                });
            }
            if instance.admin_connection_file.is_some()
                && instance.admin_connection_environment.is_some()
            {
                return Err(ConfigError::Value {
                    key: "instances",
                    found: format!("`{name}` with both a file and an environment variable"),
                    wanted: "One of them says how the server is reached",
                });
            }
        }
        let positive = [
            ("backups.at_once", backups.at_once),
            ("backups.jobs", backups.jobs.unwrap_or(1)),
            ("restores.at_once", self.restores.at_once),
            ("restores.jobs", self.restores.jobs.unwrap_or(1)),
            ("limits.connections", self.limits.connections),
            ("limits.body_kib", self.limits.body_kib),
            (
                "limits.requests_per_second",
                self.limits.requests_per_second,
            ),
            ("limits.burst", self.limits.burst),
        ];
        if let Some((key, _)) = positive.into_iter().find(|(_, number)| *number == 0) {
            let (found, wanted) = ("0".to_owned(), "It is at least 1");
            return Err(ConfigError::Value { key, found, wanted });
        }
        if self.public_url.scheme() != "https" || self.public_url.host_str().is_none() {
            return Err(ConfigError::Value {
                key: "public_url",
                found: self.public_url.to_string(),
                wanted: "It is https://HOST:PORT",
            });
        }
        let groups = self.instances.values();
        let groups = groups.filter_map(|instance| instance.resource_group.as_ref());
        let names = [
            ("location", &self.location),
            ("resource_group", &self.resource_group),
        ];
        for (key, name) in names
            .into_iter()
            .chain(groups.map(|group| ("instances.NAME.resource_group", group)))
        {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            if name.is_empty() || name.len() > 90 || !name.chars().all(plain) {
                return Err(ConfigError::Value {
                    key,
                    found: format!("`{name}`"),
                    wanted: "It is 1 to 90 letters, digits, `-`, `_` or `.`",
                });
            }
        }
        Ok(())
    }

    /// How clients reach it, without a slash at the end.
    pub fn base_url(&self) -> &str {
        self.public_url.as_str().trim_end_matches('/')
    }

    /// The same with another catalog.
    ///
    /// # Errors
    /// When that is no address of one.
    pub fn with_catalog(mut self, address: &str) -> Result<Self, ConfigError> {
        self.catalog = Some(address.to_owned());
        self.check()?;
        Ok(self)
    }

    /// Where the catalog lies, with the password that belongs to it.
    ///
    /// # Errors
    /// When the password cannot be read.
    pub fn catalog_address(&self) -> Result<CatalogAddress, SecretError> {
        let Some(address) = self.shared_catalog().ok().flatten() else {
            return Ok(CatalogAddress::File(
                self.state_directory.join("catalog.db"),
            ));
        };
        Ok(match &self.catalog_password_file {
            None => address,
            Some(path) => address.with_password(&secret::first_line(path)?),
        })
    }

    fn shared_catalog(&self) -> Result<Option<CatalogAddress>, CatalogAddressError> {
        let text = self.catalog.as_deref();
        text.map(CatalogAddress::postgres).transpose()
    }

    /// Where scratch servers keep their files.
    pub fn scratch(&self) -> PathBuf {
        let own = || self.state_directory.join("scratch");
        self.restores.scratch.clone().unwrap_or_else(own)
    }

    /// How much the scheduler may begin.
    pub fn scheduler_limits(&self) -> Limits {
        Limits {
            backups_at_once: usize::from(self.backups.at_once),
        }
    }
}

/// A duration that was checked not to be negative.
pub fn positive(duration: SignedDuration) -> Duration {
    Duration::try_from(duration).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = r#"
listen = "127.0.0.1:8443"
public_url = "https://localhost:8443"
state_directory = "/var/lib/everpoint"
[repository]
url = "/backups"
key_file = "/etc/everpoint/key"
"#;

    #[test]
    fn the_least_there_is_to_say_is_enough() {
        let config = Config::parse(LEAST).unwrap();
        assert_eq!(config.base_url(), "https://localhost:8443");
        assert_eq!(config.backups, BackupConfig::default());
        assert_eq!(config.resource_group, "default");
    }

    #[test]
    fn durations_days_and_limits_are_read() {
        let text = format!(
            "{LEAST}\n[backups]\nfull_day = \"wednesday\"\nfull_from = \"22:30\"\nfull_window = \"4h\"\nlog_every = \"30s\"\nat_once = 5\n[limits]\nburst = 9\n"
        );
        let backups = Config::parse(&text).unwrap().backups;
        assert_eq!(Weekday::from(backups.full_day), Weekday::Wednesday);
        assert_eq!(backups.full_window, SignedDuration::from_hours(4));
        assert_eq!(
            (backups.full_from.hour(), backups.full_from.minute()),
            (22, 30)
        );
    }

    #[test]
    fn what_the_operators_guide_shows_is_the_default() {
        let guide = include_str!("../../../../docs/operators/service.md");
        let blocks = guide.split("```toml\n").skip(1);
        let text: String = blocks.filter_map(|rest| rest.split("```").next()).collect();
        let config = Config::parse(&text).unwrap();
        assert_eq!(config.backups, BackupConfig::default());
        assert_eq!(config.limits, LimitConfig::default());
        assert_eq!(config.restores, RestoreConfig::default());
        assert_eq!(config.instances.len(), 2);
        assert!(config.tls.is_some());
    }

    #[test]
    fn unknown_keys_and_impossible_values_are_refused_by_name() {
        for (more, named) in [
            ("[backup]\n", "backup"),
            ("[backups]\nfull_weekday = \"monday\"\n", "full_weekday"),
            ("[backups]\nat_once = 0\n", "backups.at_once"),
            ("[backups]\nretention_days = 36\n", "backups.retention_days"),
            (
                "[identity.oidc]\nissuer = \"https://a\"\naudience = []\n",
                "audience",
            ),
            (
                "[identity.oidc]\nissuer = \"http://a\"\naudience = \"b\"\n",
                "issuer",
            ),
            (
                "[identity.oidc]\nissuer = \"https://a\"\naudience = \"b\"\nalgorithms = [\"HS256\"]\n",
                "HS256",
            ),
            (
                "[identity.oidc]\nissuer = \"https://a\"\naudience = \"b\"\nkeys = \"http://a/k\"\n",
                "keys",
            ),
            ("[backups]\nlog_every = \"11min\"\n", "backups.log_every"),
            ("[backups]\nfull_day = \"someday\"\n", "someday"),
            ("[tls]\ncertificate = \"/a\"\n", "key"),
            ("[restores]\nat_once = 0\n", "restores.at_once"),
            (
                "[restores]\nreplica_wait = \"200h\"\n",
                "restores.replica_wait",
            ),
            ("[instances.one]\nadmin = \"postgres://x\"\n", "admin"),
            (
                "[instances.one]\nadmin_connection_file = \"/a\"\nadmin_connection_environment = \"A\"\n",
                "`one`",
            ),
        ] {
            let error = Config::parse(&format!("{LEAST}{more}")).unwrap_err();
            let text = match &error {
                ConfigError::Syntax(source) => source.to_string(),
                other => other.to_string(),
            };
            assert!(text.contains(named), "{more}: {text}");
        }
        let plain = LEAST.replace("https://", "http://");
        assert!(Config::parse(&plain).is_err());
        for catalog in ["mysql://h/d", "postgres://u:p@h/d"] {
            let text = format!("catalog = \"{catalog}\"\n{LEAST}");
            assert!(Config::parse(&text).is_err(), "{catalog}");
        }
        let alone = format!("catalog_password_file = \"/x\"\n{LEAST}");
        assert!(Config::parse(&alone).is_err(), "a password for nothing");
        let two = format!("{LEAST}passphrase_file = \"/x\"\n");
        assert!(Config::parse(&two).is_err(), "two secrets");
        let typo = format!("{LEAST}key_fil = \"/x\"\n");
        assert!(
            Config::parse(&typo).is_err(),
            "an unknown key of the repository"
        );
        let none = LEAST.replace("key_file", "# key_file");
        assert!(Config::parse(&none).is_err(), "no secret");
    }
}
