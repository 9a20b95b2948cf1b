//! PostgreSQL's programs, of exactly one major version.

use std::{
    env, io,
    path::{Path, PathBuf},
};

use everpoint_pgformat::MajorVersion;
use tokio::process::Command;

use super::account::Account;

/// Where a major version's programs are found when nobody says: Debian, Red Hat, other packages.
const USUAL_PLACES: [&str; 4] = [
    "/usr/lib/postgresql/{}/bin",
    "/usr/pgsql-{}/bin",
    "/opt/postgresql/{}/bin",
    "/usr/local/pgsql-{}/bin",
];
/// Where an only version is found when built by hand.
const UNVERSIONED_PLACES: [&str; 2] = ["/usr/local/pgsql/bin", "/usr/local/bin"];

/// The directory of one major version's programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PgBinaries {
    directory: PathBuf,
    version: MajorVersion,
    full_version: String,
}

/// No programs of the version asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BinariesError {
    /// Nowhere.
    #[error(
        "PostgreSQL {wanted} is not installed: no program `postgres` of that version in {}. Install it (postgresql-{wanted}), or name its directory of programs",
        list(.looked_in)
    )]
    NotFound {
        /// The version.
        wanted: MajorVersion,
        /// Where it was looked for.
        looked_in: Vec<PathBuf>,
    },
    /// The directory named holds another version.
    #[error(
        "`{directory}` holds PostgreSQL {found}, and {wanted} is needed. Name another directory"
    )]
    OtherVersion {
        /// The directory.
        directory: PathBuf,
        /// What is there.
        found: String,
        /// What is needed.
        wanted: MajorVersion,
    },
    /// The directory named holds no server that runs.
    #[error("`{program}` cannot be run. Name the directory that holds PostgreSQL's programs")]
    NotRunnable {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A program is missing beside the server.
    #[error(
        "`{program}` is missing. Install PostgreSQL's client programs (postgresql-client-{version})"
    )]
    NoTool {
        /// The program.
        program: PathBuf,
        /// The version.
        version: MajorVersion,
    },
}

fn list(paths: &[PathBuf]) -> String {
    let shown: Vec<String> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    shown.join(", ")
}

impl PgBinaries {
    /// The programs of exactly the version `wanted`: those in `explicit` if that is given, else the first
    /// on `PATH` or in the usual places.
    ///
    /// # Errors
    /// See [`BinariesError`].
    pub async fn find(
        explicit: Option<&Path>,
        wanted: MajorVersion,
    ) -> Result<Self, BinariesError> {
        if let Some(directory) = explicit {
            let full_version = server_version(directory).await?;
            return match major(&full_version) == Some(wanted) {
                true => Ok(Self {
                    directory: home(directory),
                    version: wanted,
                    full_version,
                }),
                false => Err(BinariesError::OtherVersion {
                    directory: directory.to_owned(),
                    found: full_version,
                    wanted,
                }),
            };
        }
        let places = places(wanted);
        for directory in &places {
            if !directory.join("postgres").exists() {
                continue;
            }
            match server_version(directory).await {
                Ok(full_version) if major(&full_version) == Some(wanted) => {
                    return Ok(Self {
                        directory: home(directory),
                        version: wanted,
                        full_version,
                    });
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(directory = %directory.display(), %error, "passed over")
                }
            }
        }
        Err(BinariesError::NotFound {
            wanted,
            looked_in: places,
        })
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The major version.
    pub fn version(&self) -> MajorVersion {
        self.version
    }

    /// The version in full, such as `15.20`.
    pub fn full_version(&self) -> &str {
        &self.full_version
    }

    /// One of the programs, such as `pg_dump`.
    ///
    /// # Errors
    /// [`BinariesError::NoTool`].
    pub fn tool(&self, name: &str) -> Result<PathBuf, BinariesError> {
        let program = self.directory.join(name);
        if program.exists() {
            return Ok(program);
        }
        Err(BinariesError::NoTool {
            program,
            version: self.version,
        })
    }

    /// A call of one of the programs as `account`, from the root directory, with none of libpq's
    /// environment variables and in PostgreSQL's own language.
    ///
    /// # Errors
    /// [`BinariesError::NoTool`].
    pub fn command(&self, name: &str, account: Account) -> Result<Command, BinariesError> {
        let mut command = Command::new(self.tool(name)?);
        neutral(&mut command);
        account.apply(&mut command);
        Ok(command)
    }
}

/// Where the server's program really lies. A link to it may stand in a directory that none of the others is in;
/// PostgreSQL looks for them where the link leads (`find_my_exec`, `src/common/exec.c`).
fn home(directory: &Path) -> PathBuf {
    let program = directory.join("postgres").canonicalize();
    let real = program
        .ok()
        .and_then(|path| Some(path.parent()?.to_owned()));
    real.unwrap_or_else(|| directory.to_owned())
}

fn neutral(command: &mut Command) {
    for (variable, _) in env::vars_os() {
        if variable.to_string_lossy().starts_with("PG") {
            command.env_remove(variable);
        }
    }
    // The caller's directory may be one that the server's user cannot enter.
    command.env("LC_ALL", "C").env("TZ", "UTC").current_dir("/");
}

/// What `postgres --version` says behind `postgres (PostgreSQL)`.
async fn server_version(directory: &Path) -> Result<String, BinariesError> {
    let program = directory.join("postgres");
    let mut command = Command::new(&program);
    neutral(&mut command);
    let output = command
        .arg("--version")
        .output()
        .await
        .and_then(|output| match output.status.success() {
            true => Ok(output),
            false => Err(io::Error::other(
                String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            )),
        })
        .map_err(|source| BinariesError::NotRunnable { program, source })?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.split_once(')').map_or(text.as_ref(), |(_, rest)| rest);
    let version = version.split_ascii_whitespace().next();
    Ok(version.unwrap_or_default().to_owned())
}

/// The major version of a text such as `15.20`, `18beta1` or `19devel`.
fn major(version: &str) -> Option<MajorVersion> {
    let digits = version.split(|c: char| !c.is_ascii_digit()).next()?;
    MajorVersion::try_from(digits.parse::<u16>().ok()?).ok()
}

fn places(wanted: MajorVersion) -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = env::split_paths(&path)
        .filter(|directory| directory.is_absolute())
        .collect();
    let number = wanted.to_string();
    places.extend(USUAL_PLACES.map(|place| PathBuf::from(place.replace("{}", &number))));
    places.extend(UNVERSIONED_PLACES.map(PathBuf::from));
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_every_kind_have_their_major_version() {
        for (text, expected) in [("15.20", 15), ("18beta1", 18), ("17rc1", 17), ("16", 16)] {
            assert_eq!(major(text).map(MajorVersion::get), Some(expected), "{text}");
        }
        assert_eq!(major("14.1"), None);
        assert_eq!(major("devel"), None);
    }
}
