//! A service in a scratch directory, and requests to it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use everpoint_repository::{Repository, Store, keys::Secret, store::Missing};
use everpoint_server::{
    access::{Assignment, PrincipalId, Role, Scope},
    catalog::PrincipalRow,
    config::Config,
    http::{Answer, Method},
    service::{Running, Service, Wanted, start},
};
use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

pub const VERSION: &str = "api-version=2023-08-01";
const PASSPHRASE: &str = "a passphrase of some length";

/// A repository and a state directory.
pub struct Place {
    directory: tempfile::TempDir,
    port: u16,
}

impl Place {
    pub async fn new() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        std::fs::write(directory.path().join("passphrase"), PASSPHRASE)?;
        let store = Store::open(
            &directory.path().join("repository").display().to_string(),
            Missing::Create,
        )?;
        Repository::create(store, &[secret()], Timestamp::now()).await?;
        // Free a moment ago, which is as good as it gets.
        let port = std::net::TcpListener::bind("127.0.0.1:0")?
            .local_addr()?
            .port();
        Ok(Self { directory, port })
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn base(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    pub async fn repository(&self) -> Result<Repository> {
        let path = self.path().join("repository").display().to_string();
        Ok(Repository::open(Store::open(&path, Missing::Refuse)?, &secret()).await?)
    }

    /// Starts the service; `more` are lines of its configuration.
    pub async fn start(&self, more: &str) -> Result<Running> {
        Ok(start(Config::parse(&self.config(more))?).await?)
    }

    /// The text of the configuration that it is started with.
    pub fn config(&self, more: &str) -> String {
        let here = self.path().display();
        format!(
            "listen = \"127.0.0.1:{port}\"\npublic_url = \"{base}\"\nstate_directory = \"{here}/state\"\n\
             [repository]\nurl = \"{here}/repository\"\npassphrase_file = \"{here}/passphrase\"\n{more}",
            port = self.port,
            base = self.base(),
        )
    }
}

fn secret() -> Secret {
    Secret::Passphrase(PASSPHRASE.to_owned().into())
}

/// Where the set-up put Azure's SDK for Python (scripts/places.sh).
pub fn python_packages() -> Result<PathBuf> {
    let tools = match std::env::var_os("EVERPOINT_TOOLS") {
        Some(named) => PathBuf::from(named),
        None => [
            PathBuf::from("/var/cache/everpoint/tools"),
            PathBuf::from(std::env::var_os("HOME").unwrap_or_default())
                .join(".cache/everpoint/tools"),
        ]
        .into_iter()
        .find(|path| path.join("azure-sdk").exists())
        .context("Azure's SDK for Python is not installed. Run make setup")?,
    };
    Ok(tools.join("azure-sdk"))
}

/// Somebody who asks.
pub struct Somebody<'a> {
    service: &'a Service,
    pub id: PrincipalId,
    token: String,
}

impl<'a> Somebody<'a> {
    /// A new principal without any right.
    pub async fn new(service: &'a Service) -> Result<Self> {
        let row = PrincipalRow {
            id: Uuid::new_v4(),
            client_id: Uuid::new_v4(),
            name: "somebody".to_owned(),
            secret: String::new(),
        };
        service
            .catalog()
            .add_principal(&row, Timestamp::now())
            .await?;
        service.reload_access().await?;
        let base = service.config().base_url();
        let token = service
            .signer()
            .sign(row.id, row.client_id, base, Timestamp::now())?;
        Ok(Self {
            service,
            id: row.id,
            token,
        })
    }

    /// Gives a role; returns what takes it away again.
    pub async fn with(&self, role: &str, scope: &Scope) -> Result<Uuid> {
        let assignment = Assignment {
            id: Uuid::new_v4(),
            principal: self.id,
            role: Role::by_name(role).context("no such role")?.id,
            scope: scope.clone(),
        };
        self.service
            .catalog()
            .add_assignment(&assignment, Timestamp::now())
            .await?;
        self.service.reload_access().await?;
        Ok(assignment.id)
    }

    pub async fn without(&self, assignment: Uuid) -> Result<()> {
        self.service.catalog().remove_assignment(assignment).await?;
        Ok(self.service.reload_access().await?)
    }

    pub async fn ask(&self, method: Method, path: &str, query: &str, body: &str) -> Answer {
        let wanted = Wanted {
            method: Some(method),
            path,
            query,
            token: Some(&self.token),
            identity_header: None,
            body: body.as_bytes(),
        };
        self.service.answer(&wanted).await
    }

    /// A JSON answer with its status.
    pub async fn get(&self, path: &str) -> (u16, Value) {
        let answer = self.ask(Method::Get, path, VERSION, "").await;
        (answer.status, json(&answer))
    }

    pub async fn put(&self, path: &str, body: &str) -> (u16, Value) {
        let answer = self.ask(Method::Put, path, VERSION, body).await;
        (answer.status, json(&answer))
    }
}

pub fn json(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or(Value::Null)
}

/// The code of an error.
pub fn code(answer: &Value) -> &str {
    answer["error"]["code"].as_str().unwrap_or("none")
}
