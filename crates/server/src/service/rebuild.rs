//! Making a lost catalog anew from what the repository keeps.

use std::path::{Path, PathBuf};

use everpoint_repository::{
    Repository, RepositoryError, Store, StoreError, policy_document::DatabasePolicy, store::Missing,
};
use jiff::Timestamp;

use super::{access_document, run};
use crate::{
    catalog::{
        Catalog, CatalogAddress, CatalogError, Contents, DatabaseRow, InstanceContents,
        LongTermRow, Tags, There,
    },
    config::{Config, SecretError},
    policy::{LongTermPolicy, Period, RetentionDays, WeekOfYear},
};

/// What becomes of a catalog that is there and has something in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// It stays, and nothing is done.
    Refuse,
    /// It is kept as a copy, and a new one takes its place.
    SetAside,
}

/// What a catalog was made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// Principals; none when the repository holds no copy of them, and the next start makes a new owner.
    pub principals: usize,
    /// Assignments.
    pub assignments: usize,
    /// Databases, living and deleted, of all instances.
    pub databases: usize,
    /// Where the earlier catalog is now.
    pub set_aside: Option<String>,
}

/// The catalog cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The state directory.
    #[error(transparent)]
    Run(#[from] Box<run::RunError>),
    /// A secret.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The repository's place.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The repository.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The catalog.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// There is one.
    #[error(
        "the catalog {place} is there and not empty. With --force it is kept as a copy, and a new one made"
    )]
    NotEmpty {
        /// Its address.
        place: String,
    },
    /// Servers use it.
    #[error("servers run on the catalog {place}. Stop them first")]
    InUse {
        /// Its address.
        place: String,
    },
    /// The copy says what no version wrote.
    #[error("the repository's copy of {what} cannot be used: {why}")]
    Copy {
        /// Of what.
        what: String,
        /// Why not.
        why: String,
    },
    /// The earlier catalog cannot be moved.
    #[error("cannot move {}", path.display())]
    Move {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Makes a new catalog from the repository.
///
/// # Errors
/// See [`RebuildError`]. Nothing is changed then, except that an earlier catalog may be set aside.
pub async fn rebuild(config: &Config, existing: Existing) -> Result<Rebuilt, RebuildError> {
    // While it is held no server can start on a catalog that is a file.
    let _lock = run::prepare_state_directory(&config.state_directory).map_err(Box::new)?;
    let store = Store::open(&config.repository.url, Missing::Refuse)?;
    let repository = Repository::open(store, &config.repository.secret.read()?).await?;
    let contents = contents(&repository).await?;
    let address = config.catalog_address()?;
    let mut catalog = Catalog::open(&address).await?;
    let mut rebuilt = Rebuilt::default();
    if !catalog.is_empty().await? {
        let place = address.to_string();
        if existing == Existing::Refuse {
            return Err(RebuildError::NotEmpty { place });
        }
        if matches!(address, CatalogAddress::Postgres(_)) && is_used(&catalog).await? {
            return Err(RebuildError::InUse { place });
        }
        let now = Timestamp::now();
        rebuilt.set_aside = match &address {
            CatalogAddress::Postgres(_) => {
                catalog.set_aside(now).await?.map(|s| format!("schema {s}"))
            }
            CatalogAddress::File(path) => {
                catalog.close().await;
                let aside = set_file_aside(path, now)?;
                catalog = Catalog::open(&address).await?;
                Some(aside.display().to_string())
            }
        };
    }
    catalog.fill(&contents).await?;
    if let Some((.., access)) = &contents.access {
        rebuilt.principals = access.principals.len();
        rebuilt.assignments = access.assignments.len();
    }
    rebuilt.databases = contents
        .instances
        .iter()
        .map(|known| known.databases.len())
        .sum();
    catalog.close().await;
    Ok(rebuilt)
}

async fn contents(repository: &Repository) -> Result<Contents, RebuildError> {
    let mut contents = Contents::default();
    if let Some((number, document)) = repository.access().await? {
        let access = access_document::snapshot(number, &document).map_err(|why| {
            let what = "principals and assignments".to_owned();
            RebuildError::Copy { what, why }
        })?;
        contents.access = Some((document.tenant, document.subscription, access));
    }
    for instance in repository.instances().await? {
        let Some((revision, document)) = repository.policies(&instance).await? else {
            continue;
        };
        let failed = |why| {
            let what = format!("the policies of {instance}");
            RebuildError::Copy { what, why }
        };
        let rows = document.databases.iter().map(database);
        let databases = rows.collect::<Result<_, _>>().map_err(failed)?;
        let rows = document.databases.iter();
        let rows = rows.map(|stored| long_term(stored, document.written_at));
        let long_term = rows.filter_map(Result::transpose).collect::<Result<_, _>>();
        contents.instances.push(InstanceContents {
            long_term: long_term.map_err(failed)?,
            instance,
            revision,
            databases,
        });
    }
    Ok(contents)
}

fn database(stored: &DatabasePolicy) -> Result<DatabaseRow, String> {
    let days = i64::from(stored.short_term_days);
    let retention = match stored.deleted_at {
        None => RetentionDays::of_living(days),
        Some(_) => RetentionDays::of_deleted(days, RetentionDays::LONGEST),
    };
    Ok(DatabaseRow {
        oid: stored.oid.get(),
        name: stored.name.clone(),
        collation: stored.collation.clone(),
        created_at: stored.created_at,
        there: There::By(stored.created_at),
        retention: retention.map_err(|error| error.to_string())?,
        deleted_at: stored.deleted_at,
        tags: Tags::new(stored.tags.clone()).map_err(|error| error.to_string())?,
    })
}

/// Its long-term policy, if it has one. Backups that ended before the copy was written were considered, and what was
/// missed of them stays so.
fn long_term(
    stored: &DatabasePolicy,
    written_at: Timestamp,
) -> Result<Option<LongTermRow>, String> {
    let Some(periods) = &stored.long_term else {
        return Ok(None);
    };
    let period = |text: &str| Period::parse(text).map_err(|error| error.to_string());
    let week = periods
        .week_of_year
        .map(|week| WeekOfYear::new(week.into()));
    let week = week.transpose().map_err(|error| error.to_string())?;
    let (weekly, monthly) = (period(&periods.weekly)?, period(&periods.monthly)?);
    let policy = LongTermPolicy::new(weekly, monthly, period(&periods.yearly)?, week);
    Ok(Some(LongTermRow {
        oid: stored.oid.get(),
        created_at: stored.created_at,
        policy: policy.map_err(|error| error.to_string())?,
        considered: written_at,
        last: Vec::new(),
    }))
}

/// Whether a server counts on while this looks.
async fn is_used(catalog: &Catalog) -> Result<bool, CatalogError> {
    let before = catalog.servers().await?;
    if before.is_empty() {
        return Ok(false);
    }
    tokio::time::sleep(super::step::PATIENCE).await;
    let after = catalog.servers().await?;
    Ok(after.iter().any(|server| !before.contains(server)))
}

/// Moves a catalog's file; its log, if there is one, first, for without its file nothing is done with that.
fn set_file_aside(path: &Path, now: Timestamp) -> Result<PathBuf, RebuildError> {
    let beside = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let aside = beside(&now.strftime(".%Y%m%dT%H%M%SZ").to_string());
    for suffix in ["-shm", "-wal", ""] {
        let from = beside(suffix);
        let mut to = aside.as_os_str().to_owned();
        to.push(suffix);
        match std::fs::rename(&from, &to) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(RebuildError::Move { path: from, source }),
        }
    }
    Ok(aside)
}
