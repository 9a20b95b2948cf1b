//! Operations of the service: listed, shown, waited for, cancelled.

use everpoint_api::{Resource, client::Begun, operation::OperationProperties};
use tokio::signal::unix::{SignalKind, signal};

use super::{
    databases::{instance_path, time},
    login::Session,
};
use crate::{
    args::{Global, remote::OperationCommand},
    exit::{Exit, Refusal},
    output,
};

type Operation = Resource<OperationProperties>;

pub async fn run(
    session: &Session,
    global: &Global,
    command: OperationCommand,
) -> anyhow::Result<Exit> {
    match command {
        OperationCommand::List(args) => {
            let path = format!("{}/operations", instance_path(session, &args.name));
            let rows: Vec<Operation> = session.client.list(&path).await?;
            let header = ["OPERATION", "WHAT", "STATE", "DONE", "BEGUN"];
            output::list(global.output, &rows, &header, cells, "no operation")?;
        }
        OperationCommand::Show(args) => {
            let path = format!(
                "{}/operations/{}",
                instance_path(session, &args.name),
                args.id
            );
            let found: Operation = session.client.get(&path).await?;
            output::one(global.output, &found, || text(&found))?;
        }
        OperationCommand::Cancel(args) => {
            let path = format!(
                "{}/operations/{}/cancel",
                instance_path(session, &args.name),
                args.id
            );
            session.client.post(&path).await?;
            eprintln!("asked {} to end", args.id);
        }
    }
    Ok(Exit::Success)
}

fn cells(row: &Operation) -> Vec<String> {
    let properties = &row.properties;
    vec![
        row.name.clone(),
        properties.operation.clone(),
        properties.state.clone(),
        format!("{} %", properties.percent_complete),
        time(Some(properties.start_time)),
    ]
}

fn text(operation: &Operation) -> String {
    let properties = &operation.properties;
    let mut text = format!(
        "{} of {}: {}, {} %\n  by     {}\n  begun  {}\n",
        properties.operation_friendly_name,
        properties.managed_instance_name,
        properties.state,
        properties.percent_complete,
        properties.actor,
        time(Some(properties.start_time)),
    );
    if let Some(error) = &properties.error_description {
        let code = properties.error_code.as_deref().unwrap_or("none");
        text.push_str(&output::wrapped(&format!("{error} ({code})"), 2));
    }
    for event in &properties.events {
        let line = format!("{}  {}", time(Some(event.time)), event.message);
        text.push_str(&output::wrapped(&line, 2));
    }
    text
}

/// Waits until an operation has ended, and tells how far it is. Interrupted, it stops waiting: the operation
/// goes on.
pub async fn wait(session: &Session, begun: Begun) -> anyhow::Result<()> {
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut told = None;
    let waiting = begun.wait(&session.client, |status| {
        let now = (status.status.clone(), status.percent_complete);
        if told.as_ref() != Some(&now) {
            eprintln!("{}  {} %", now.0, now.1);
            told = Some(now);
        }
    });
    tokio::select! {
        ended = waiting => Ok(ended?),
        _ = interrupted.recv() => {
            let text = "not waiting any more; the service goes on. `everpoint operation list` shows how far it is, \
                        `everpoint operation cancel` ends it";
            Err(Refusal(text.to_owned()).into())
        }
    }
}
