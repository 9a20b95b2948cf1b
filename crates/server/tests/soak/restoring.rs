//! Databases brought back in scratch servers, and compared with the ledger.

use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result, ensure};
use everpoint_engine::{
    database::{self, DatabaseRequest, choose::Wanted, scratch::Scratch, sweep::put_away},
    progress::Progress,
    restore::{target::Target, writer::Owner},
};
use everpoint_instance::process::PgBinaries;
use everpoint_repository::Repository;
use everpoint_testkit::{Cluster, Ledger, Scratch as TestDirectory, workload};
use jiff::Timestamp;

/// Where scratch servers live.
pub struct Restoring {
    directory: TestDirectory,
    owner: Option<Owner>,
    binaries: PgBinaries,
}

impl Restoring {
    pub async fn new(cluster: &Cluster) -> Result<Self> {
        let found = std::fs::metadata(cluster.data_directory())?;
        let owner = rustix::process::geteuid().is_root().then(|| Owner {
            user: found.uid(),
            group: found.gid(),
        });
        Ok(Self {
            directory: TestDirectory::new()?,
            owner,
            binaries: PgBinaries::find(Some(cluster.server().bin()), cluster.server().version())
                .await?,
        })
    }

    fn request(&self, wanted: Wanted, target: Option<Target>) -> Result<DatabaseRequest> {
        Ok(DatabaseRequest {
            instance: "one".parse()?,
            wanted,
            target,
            timeline: None,
            scratch: self.directory.path().join("s"),
            owner: self.owner,
            jobs: 1,
        })
    }

    /// A database as of a moment holds exactly what was committed then.
    pub async fn check(
        &self,
        repository: &Repository,
        name: &str,
        time: Timestamp,
        ledger: &Ledger,
    ) -> Result<()> {
        let request = self.request(Wanted::Named(name.to_owned()), Some(Target::Time(time)))?;
        self.compare(repository, request, ledger, workload::Target::Time(time))
            .await
    }

    /// A dropped database comes back with all that was acknowledged.
    pub async fn undo_drop(
        &self,
        repository: &Repository,
        name: &str,
        ledger: &Ledger,
    ) -> Result<()> {
        let wanted = Wanted::Deleted {
            name: name.to_owned(),
            dropped: None,
        };
        let request = self.request(wanted, None)?;
        self.compare(repository, request, ledger, workload::Target::Latest)
            .await
    }

    async fn compare(
        &self,
        repository: &Repository,
        request: DatabaseRequest,
        ledger: &Ledger,
        state: workload::Target,
    ) -> Result<()> {
        let plan = database::plan(repository, request).await?;
        let scratch = Scratch::make(&plan.request.scratch, &plan.request.instance, self.owner)?;
        let progress = Progress::default();
        let recovered = database::recover(
            repository,
            &plan,
            &scratch,
            &self.binaries,
            &progress,
            |_| Ok(()),
        )
        .await;
        let compared = async {
            let server = recovered?;
            let text = server.connection().to_text().to_string();
            let (client, connection) =
                tokio_postgres::connect(&text, tokio_postgres::NoTls).await?;
            let task = tokio::spawn(connection);
            let checked = ledger.check(&client, state).await;
            drop(client);
            task.await??;
            server.stop().await?;
            anyhow::Ok(checked?)
        }
        .await;
        put_away(scratch).await?;
        let checked = compared.context("the restored database")?;
        ensure!(checked.present + checked.absent > 0, "nothing was compared");
        Ok(())
    }
}
