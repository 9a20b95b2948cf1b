//! `everpoint instance`.

use everpoint_engine::instance_record::{InstanceRecord, WalSupply};
use everpoint_instance::{
    CheckReport, ConnectionSpec, ReplicationClient, ReplicationError, ServerFacts, WalMode,
    check::{Outcome, check},
    connect_sql,
    replication::{SlotLifetime, SlotName},
};
use everpoint_repository::RepositoryError;
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    args::{Global, InstanceAdd, OutputFormat, WalChoice},
    exit::{Exit, Refusal},
    output,
    repository::open,
};

pub async fn add(global: &Global, args: InstanceAdd) -> anyhow::Result<Exit> {
    let connection: ConnectionSpec = args.connection.parse()?;
    let default = || format!("everpoint_{}", args.name.as_str().replace('-', "_"));
    let slot: SlotName = args.slot.clone().unwrap_or_else(default).parse()?;
    let repository = open(global).await?;
    let previous = match repository.description::<InstanceRecord>(&args.name).await {
        Ok(found) => Some(found),
        Err(RepositoryError::UnknownInstance { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let data_directory = match args.data_directory {
        Some(directory) => Some(directory),
        // Where the server cannot be asked, the check says why.
        None => ask_data_directory(&connection).await.ok(),
    };
    let mode = match args.wal {
        WalChoice::Stream => WalMode::Slot(slot.clone()),
        WalChoice::Push => WalMode::NoSlot,
    };
    let report = check(&connection, data_directory.as_deref(), &mode).await;
    print_report(global.output, &report)?;
    let failed = report.failed().count();
    if failed > 0 {
        let text = format!("{failed} checks failed; `{}` was not added", args.name);
        return Err(Refusal(text).into());
    }
    let Some(data_directory) = data_directory else {
        let text = "the server's data directory is not known. Give --data-directory DIRECTORY";
        return Err(Refusal(text.to_owned()).into());
    };
    let session = connect_sql(&connection, connection.database()).await?;
    let facts = ServerFacts::read(&session).await?;
    if let Some((_, old)) = &previous
        && old.system_identifier != facts.system_identifier
    {
        let text = format!(
            "instance `{}` is another cluster (system identifier {}, this one {}). Give this one a name of its own",
            args.name, old.system_identifier, facts.system_identifier
        );
        return Err(Refusal(text).into());
    }
    if args.check_only {
        return Ok(Exit::Success);
    }
    let wal = match args.wal {
        WalChoice::Push => WalSupply::Push,
        WalChoice::Stream => {
            make_slot(&connection, &slot).await?;
            WalSupply::Stream {
                slot: slot.to_string(),
            }
        }
    };
    let record = InstanceRecord {
        system_identifier: facts.system_identifier,
        version: facts.major,
        connection: connection.to_text().to_string(),
        data_directory: data_directory.canonicalize()?,
        segment_size: facts.segment_size,
        wal,
        added_at: previous
            .as_ref()
            .map_or_else(Timestamp::now, |(_, old)| old.added_at),
    };
    let revision = previous.as_ref().map_or(0, |(revision, _)| revision + 1);
    repository
        .write_description(&args.name, revision, &record)
        .await?;
    if global.output == OutputFormat::Table {
        let next = match record.wal {
            WalSupply::Stream { .. } => format!(
                "Its slot holds back log from now on: run `everpoint wal receive {}` as a service.",
                args.name
            ),
            WalSupply::Push => format!(
                "Set archive_mode = on and archive_command = 'everpoint wal push {} %p'.",
                args.name
            ),
        };
        let verb = if previous.is_some() {
            "changed"
        } else {
            "added"
        };
        println!(
            "\n{verb} `{}`. {next}\nThen take the first backup: everpoint backup {}",
            args.name, args.name
        );
    }
    Ok(Exit::Success)
}

async fn ask_data_directory(connection: &ConnectionSpec) -> anyhow::Result<std::path::PathBuf> {
    let session = connect_sql(connection, connection.database()).await?;
    Ok(ServerFacts::read(&session).await?.data_directory.into())
}

async fn make_slot(connection: &ConnectionSpec, slot: &SlotName) -> anyhow::Result<()> {
    let mut client = ReplicationClient::connect(connection).await?;
    match client.create_slot(slot, SlotLifetime::Persistent).await {
        Ok(_) | Err(ReplicationError::SlotExists { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[derive(Serialize)]
struct CheckRow {
    check: String,
    outcome: &'static str,
    found: String,
    mend: Option<String>,
}

fn print_report(format: OutputFormat, report: &CheckReport) -> anyhow::Result<()> {
    let rows: Vec<CheckRow> = report
        .checks()
        .iter()
        .map(|check| {
            let (outcome, found, mend) = match &check.outcome {
                Outcome::Ok { found } => ("ok", found.clone(), None),
                Outcome::Warning { cause, mend } => ("warning", cause.clone(), Some(mend.clone())),
                Outcome::Failed { cause, mend } => ("FAILED", cause.clone(), Some(mend.clone())),
            };
            CheckRow {
                check: check.name.to_string(),
                outcome,
                found,
                mend,
            }
        })
        .collect();
    if format == OutputFormat::Json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
        return Ok(());
    }
    let width = rows.iter().map(|row| row.check.len()).max().unwrap_or(0);
    for row in &rows {
        println!("{:<7}  {:<width$}  {}", row.outcome, row.check, row.found);
        if let Some(mend) = &row.mend {
            println!("{:9}{:width$}  -> {mend}", "", "");
        }
    }
    Ok(())
}

#[derive(Serialize)]
struct InstanceRow {
    name: String,
    version: u16,
    system_identifier: String,
    connection: String,
    data_directory: String,
    wal: String,
}

pub async fn list(global: &Global) -> anyhow::Result<Exit> {
    let repository = open(global).await?;
    let mut rows = Vec::new();
    for name in repository.instances().await? {
        let (_, record) = repository.description::<InstanceRecord>(&name).await?;
        let connection: ConnectionSpec = record.connection.parse()?;
        rows.push(InstanceRow {
            name: name.to_string(),
            version: record.version.get(),
            system_identifier: record.system_identifier.to_string(),
            connection: connection.to_string(),
            data_directory: record.data_directory.display().to_string(),
            wal: match record.wal {
                WalSupply::Stream { slot } => format!("slot {slot}"),
                WalSupply::Push => "archive_command".to_owned(),
            },
        });
    }
    let header = ["NAME", "VERSION", "WAL", "DATA DIRECTORY", "CONNECTION"];
    let cells = |row: &InstanceRow| {
        vec![
            row.name.clone(),
            row.version.to_string(),
            row.wal.clone(),
            row.data_directory.clone(),
            row.connection.clone(),
        ]
    };
    let empty = "no instances yet; `everpoint instance add` adds one";
    output::list(global.output, &rows, &header, cells, empty)?;
    Ok(Exit::Success)
}
