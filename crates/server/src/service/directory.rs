//! Principals, changed on the catalog directly by whoever may read the configuration: the way in when nobody can
//! sign in any more. Running servers follow within seconds. What is done is queued for the audit log.

use jiff::Timestamp;
use uuid::Uuid;

use crate::{
    access::{Assignment, PrincipalId, Role, Scope},
    catalog::{Catalog, CatalogError, Done, PrincipalKind, PrincipalRow, SecretId, SecretRow},
    config::{Config, InstanceConfig, SecretError},
    identity::{ClientSecret, SecretHash, external},
};

/// The fewest characters of a password.
pub const MIN_PASSWORD_CHARS: usize = 12;
/// The most bytes of a password or a name.
const MAX_BYTES: usize = 128;
/// The most secrets of a principal: each is tried when somebody signs in.
const MAX_SECRETS: usize = 5;

/// Principals and how they are changed.
pub struct Directory {
    catalog: Catalog,
    subscription: Uuid,
    groups: Vec<Scope>,
    issuer: Option<String>,
    actor: String,
}

/// Something cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The catalog's password.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The catalog.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The service never ran.
    #[error("the catalog is empty. Start the service once: that makes its tenant and its owner")]
    Empty,
    /// There is no such one.
    #[error("there is no {what} `{name}`")]
    Missing {
        /// What.
        what: &'static str,
        /// As given.
        name: String,
    },
    /// There is more than one.
    #[error("there is more than one service principal `{name}`. Name it by its client id")]
    Ambiguous {
        /// As given.
        name: String,
    },
    /// The name is taken.
    #[error("there is a user `{name}` already")]
    Taken {
        /// The name.
        name: String,
    },
    /// The name cannot be one.
    #[error(
        "`{name}` is no name: it has 1 to {MAX_BYTES} bytes without control characters or spaces around it"
    )]
    Name {
        /// As given.
        name: String,
    },
    /// The password is too weak.
    #[error(
        "a password has at least {MIN_PASSWORD_CHARS} characters and at most {MAX_BYTES} bytes"
    )]
    Password,
    /// It signs in elsewhere.
    #[error("`{name}` signs in at another issuer and has no password here")]
    External {
        /// Its name.
        name: String,
    },
    /// No other issuer is configured.
    #[error("no other issuer is configured. Add [identity.oidc] first")]
    NoIssuer,
    /// It would be the last.
    #[error("`{name}` is the subscription's last owner. Make another one first")]
    LastOwner {
        /// Its name.
        name: String,
    },
    /// Nothing is there.
    #[error(
        "no instance is in {scope}, by the configuration. Write there first which are (`[instances.NAME]`, subscription and resource_group), or name another place"
    )]
    NoPlace {
        /// As given.
        scope: Scope,
    },
    /// It has enough.
    #[error("`{name}` has {MAX_SECRETS} secrets already. Take one away first")]
    Secrets {
        /// Its name.
        name: String,
    },
    /// The system has no randomness or memory.
    #[error("the system gives no randomness")]
    Randomness,
}

/// A role that somebody new is given.
#[derive(Clone, Debug)]
pub struct Grant<'a> {
    /// The role.
    pub role: &'a Role,
    /// Where; at the service's own subscription when absent.
    pub scope: Option<Scope>,
}

impl<'a> From<&'a Role> for Grant<'a> {
    fn from(role: &'a Role) -> Self {
        Self { role, scope: None }
    }
}

/// How a new user signs in.
pub enum SignIn<'a> {
    /// Here, with a password.
    Password(&'a str),
    /// At the other issuer, whose claim has this value.
    External(&'a str),
}

impl Directory {
    /// Opens the catalog of a configuration.
    ///
    /// # Errors
    /// When it cannot be opened, or no service ran on it yet.
    pub async fn open(config: &Config) -> Result<Self, DirectoryError> {
        let catalog = Catalog::open(&config.catalog_address()?).await?;
        let subscription = catalog.known("subscription").await?;
        let subscription = subscription
            .and_then(|text| Uuid::try_parse(&text).ok())
            .ok_or(DirectoryError::Empty)?;
        let own = |instance: &InstanceConfig| {
            let group = instance.resource_group.as_ref();
            Scope::subscription(instance.subscription.unwrap_or(subscription))
                .below(group.unwrap_or(&config.resource_group))
        };
        let mut groups = vec![own(&InstanceConfig::default())];
        groups.extend(config.instances.values().map(own));
        Ok(Self {
            groups,
            catalog,
            subscription,
            issuer: config
                .identity
                .oidc
                .as_ref()
                .map(|oidc| oidc.issuer.clone()),
            actor: format!(
                "operating system user {}",
                rustix::process::getuid().as_raw()
            ),
        })
    }

    /// All of a kind, by name.
    ///
    /// # Errors
    /// When the catalog fails.
    pub async fn list(&self, kind: PrincipalKind) -> Result<Vec<PrincipalRow>, DirectoryError> {
        let mut all = self.catalog.principals().await?;
        all.retain(|row| row.kind == kind);
        Ok(all)
    }

    /// Adds a user.
    ///
    /// # Errors
    /// When the name is taken, or the password too weak.
    pub async fn add_user(
        &self,
        name: &str,
        sign_in: SignIn<'_>,
        role: Option<Grant<'_>>,
    ) -> Result<PrincipalRow, DirectoryError> {
        let name = checked_name(name)?;
        let same = |row: &PrincipalRow| row.name.to_lowercase() == name.to_lowercase();
        if self.list(PrincipalKind::User).await?.iter().any(same) {
            let name = name.to_owned();
            return Err(DirectoryError::Taken { name });
        }
        let now = Timestamp::now();
        let row = match sign_in {
            SignIn::Password(text) => {
                let password = hashed_password(text, now)?;
                PrincipalRow::user(Uuid::new_v4(), name, None, Some(password), now)
            }
            SignIn::External(value) => {
                let issuer = self.issuer.as_ref().ok_or(DirectoryError::NoIssuer)?;
                let found = external(issuer, value);
                PrincipalRow::user(found.id, name, Some(found.value), None, now)
            }
        };
        self.add(&row, role, "add user").await?;
        Ok(row)
    }

    /// Gives a user another password.
    ///
    /// # Errors
    /// When there is no such user, or the password is too weak.
    pub async fn set_password(&self, name: &str, text: &str) -> Result<(), DirectoryError> {
        let row = self.find(PrincipalKind::User, name).await?;
        if row.external.is_some() {
            return Err(DirectoryError::External { name: row.name });
        }
        let password = hashed_password(text, Timestamp::now())?;
        self.note("set password", &row).await?;
        Ok(self.catalog.set_password(row.id, &password).await?)
    }

    /// Adds a service principal with a secret, which is nowhere in the clear but in the result.
    ///
    /// # Errors
    /// When the name cannot be one.
    pub async fn add_program(
        &self,
        name: &str,
        role: Option<Grant<'_>>,
        expires_at: Option<Timestamp>,
    ) -> Result<(PrincipalRow, ClientSecret), DirectoryError> {
        let (name, now) = (checked_name(name)?, Timestamp::now());
        let (kept, secret) = new_secret(now, expires_at)?;
        let (id, client) = (Uuid::new_v4(), Uuid::new_v4());
        let row = PrincipalRow::service(id, client, name, Some(kept), now);
        self.add(&row, role, "add service principal").await?;
        Ok((row, secret))
    }

    /// Gives a service principal a secret more.
    ///
    /// # Errors
    /// When there is no such one, or it has enough.
    pub async fn add_secret(
        &self,
        name: &str,
        expires_at: Option<Timestamp>,
    ) -> Result<(SecretId, ClientSecret), DirectoryError> {
        let row = self.find(PrincipalKind::ServicePrincipal, name).await?;
        if row.secrets.len() >= MAX_SECRETS {
            return Err(DirectoryError::Secrets { name: row.name });
        }
        let (kept, secret) = new_secret(Timestamp::now(), expires_at)?;
        self.note("add secret", &row).await?;
        self.catalog.add_secret(row.id, &kept).await?;
        Ok((kept.id, secret))
    }

    /// Takes a secret of a service principal away.
    ///
    /// # Errors
    /// When there is no such one.
    pub async fn remove_secret(&self, name: &str, id: SecretId) -> Result<(), DirectoryError> {
        let row = self.find(PrincipalKind::ServicePrincipal, name).await?;
        if !row.secrets.iter().any(|secret| secret.id == id) {
            let (what, name) = ("secret", id.to_string());
            return Err(DirectoryError::Missing { what, name });
        }
        self.note("remove secret", &row).await?;
        Ok(self.catalog.remove_secret(row.id, id).await?)
    }

    /// Lets a user or service principal in no more. Tokens that were given out are of no use from then on, too.
    ///
    /// # Errors
    /// When there is no such one, or it is the last owner.
    pub async fn disable(&self, kind: PrincipalKind, name: &str) -> Result<(), DirectoryError> {
        let row = self.find(kind, name).await?;
        self.check_owners_without(&row).await?;
        self.note("disable", &row).await?;
        let now = Timestamp::now();
        Ok(self.catalog.set_disabled(row.id, Some(now)).await?)
    }

    /// Lets a user or service principal in again.
    ///
    /// # Errors
    /// When there is no such one.
    pub async fn enable(&self, kind: PrincipalKind, name: &str) -> Result<(), DirectoryError> {
        let row = self.find(kind, name).await?;
        self.note("enable", &row).await?;
        Ok(self.catalog.set_disabled(row.id, None).await?)
    }

    /// Removes a user or service principal, with its assignments.
    ///
    /// # Errors
    /// When there is no such one, or it is the last owner.
    pub async fn remove(&self, kind: PrincipalKind, name: &str) -> Result<(), DirectoryError> {
        let row = self.find(kind, name).await?;
        self.check_owners_without(&row).await?;
        self.note("remove", &row).await?;
        self.catalog.remove_principal(row.id).await?;
        Ok(())
    }

    /// By name, object id or client id.
    async fn find(&self, kind: PrincipalKind, name: &str) -> Result<PrincipalRow, DirectoryError> {
        let all = self.list(kind).await?;
        let id: Option<PrincipalId> = Uuid::try_parse(name).ok();
        let by_id = |row: &&PrincipalRow| Some(row.id) == id || Some(row.client_id) == id;
        if let Some(row) = all.iter().find(by_id) {
            return Ok(row.clone());
        }
        let mut named = all
            .iter()
            .filter(|row| row.name.to_lowercase() == name.to_lowercase());
        let what = match kind {
            PrincipalKind::User => "user",
            PrincipalKind::ServicePrincipal => "service principal",
        };
        let name = name.to_owned();
        match (named.next(), named.next()) {
            (Some(row), None) => Ok(row.clone()),
            (Some(_), Some(_)) => Err(DirectoryError::Ambiguous { name }),
            _ => Err(DirectoryError::Missing { what, name }),
        }
    }

    async fn add(
        &self,
        row: &PrincipalRow,
        role: Option<Grant<'_>>,
        action: &str,
    ) -> Result<(), DirectoryError> {
        if let Some(scope) = role.as_ref().and_then(|grant| grant.scope.as_ref()) {
            let mut groups = self.groups.iter();
            if !groups.any(|group| scope.contains(group) || group.contains(scope)) {
                let scope = scope.clone();
                return Err(DirectoryError::NoPlace { scope });
            }
        }
        self.note(action, row).await?;
        self.catalog.add_principal(row).await?;
        let Some(Grant { role, scope }) = role else {
            return Ok(());
        };
        let assignment = Assignment {
            id: Uuid::new_v4(),
            principal: row.id,
            role: role.id,
            scope: scope.unwrap_or(Scope::subscription(self.subscription)),
        };
        self.note(&format!("assign {}", role.name), row).await?;
        let now = Timestamp::now();
        Ok(self.catalog.add_assignment(&assignment, now).await?)
    }

    /// That somebody else is left who may do everything.
    async fn check_owners_without(&self, row: &PrincipalRow) -> Result<(), DirectoryError> {
        let snapshot = self.catalog.access_snapshot().await?;
        let whole = Scope::subscription(self.subscription);
        let owners = |id: PrincipalId| {
            snapshot.assignments.iter().any(|(assignment, _)| {
                assignment.principal == id
                    && assignment.scope == whole
                    && Role::by_id(assignment.role).is_some_and(|role| role.name == "Owner")
            })
        };
        let mut others = snapshot
            .principals
            .iter()
            .filter(|other| other.id != row.id);
        if owners(row.id) && !others.any(|other| other.is_enabled() && owners(other.id)) {
            let name = row.name.clone();
            return Err(DirectoryError::LastOwner { name });
        }
        Ok(())
    }

    /// Before it is done: what was done is in the audit log for certain.
    async fn note(&self, action: &str, row: &PrincipalRow) -> Result<(), DirectoryError> {
        let done = Done {
            time: Timestamp::now(),
            principal: self.actor.clone(),
            action: action.to_owned(),
            scope: "service".to_owned(),
            detail: format!("{} {} ({})", row.kind.as_str(), row.id, row.name),
        };
        Ok(self.catalog.queue_audit(&done).await?)
    }
}

fn checked_name(name: &str) -> Result<&str, DirectoryError> {
    let fits = !name.is_empty()
        && name.len() <= MAX_BYTES
        && name.trim() == name
        && !name.chars().any(char::is_control);
    match fits {
        true => Ok(name),
        false => Err(DirectoryError::Name {
            name: name.chars().take(MAX_BYTES).collect(),
        }),
    }
}

fn hashed_password(text: &str, now: Timestamp) -> Result<SecretRow, DirectoryError> {
    if text.chars().count() < MIN_PASSWORD_CHARS || text.len() > MAX_BYTES {
        return Err(DirectoryError::Password);
    }
    let hash = SecretHash::of(text).ok_or(DirectoryError::Randomness)?;
    Ok(SecretRow::new(hash.text(), now, None))
}

fn new_secret(
    now: Timestamp,
    expires_at: Option<Timestamp>,
) -> Result<(SecretRow, ClientSecret), DirectoryError> {
    let secret = ClientSecret::random().ok_or(DirectoryError::Randomness)?;
    let hash = SecretHash::of(secret.text()).ok_or(DirectoryError::Randomness)?;
    Ok((SecretRow::new(hash.text(), now, expires_at), secret))
}
