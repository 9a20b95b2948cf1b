//! `everpoint wal`.

use std::sync::Arc;

use everpoint_engine::{
    instance_record::WalSupply,
    log::{
        push::{Pushed, push as push_file},
        receive::{self as receiving, LEAST_INTERVAL, ReceiveEvent, ReceivePlan, Until},
    },
    summary::{Extent, RebuildEvent, Rebuilt, SummaryContext, SummaryEvent, rebuild},
};
use everpoint_instance::{InstanceLock, LockKind, connect_sql};
use everpoint_pgformat::Lsn;
use everpoint_repository::{Repository, layout};
use jiff::Timestamp;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use super::known;
use crate::{
    args::{Global, Push, Receive, Summarize},
    exit::{Exit, Refusal},
    output,
};

pub async fn receive(repository: &Repository, args: &Receive) -> anyhow::Result<Exit> {
    if args.interval < LEAST_INTERVAL {
        return Err(Refusal("the interval is at least 1s".to_owned()).into());
    }
    let (record, connection) = known(repository, &args.name).await?;
    let WalSupply::Stream { slot } = &record.wal else {
        let text = format!(
            "instance `{}` pushes its log by archive_command. `everpoint instance add {} --wal stream …` changes that",
            args.name, args.name
        );
        return Err(Refusal(text).into());
    };
    let session = connect_sql(&connection, connection.database()).await?;
    let lock = InstanceLock::try_acquire(session, LockKind::Receiver, args.name.as_str()).await?;
    for folder in [layout::logs(&args.name), layout::summaries(&args.name)] {
        repository.store().sweep_staged(&folder)?;
    }
    let plan = ReceivePlan {
        instance: args.name.clone(),
        slot: slot.parse()?,
        record: record.clone(),
        connection,
        interval: args.interval,
        cut_bytes: u64::from(args.cut_mib) << 20,
        until: Until::Told,
    };
    let (tell, stop) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        // Nobody listening means that receiving has ended already.
        let _ = tell.send(true);
    });
    let received = receiving::receive(repository, &plan, stop, Arc::new(say)).await;
    lock.give_up().await;
    received?;
    Ok(Exit::Success)
}

fn say(event: ReceiveEvent) {
    let now = output::time(Timestamp::now());
    match event {
        ReceiveEvent::Streaming { from, timeline } => {
            println!("{now} streaming from {from} on timeline {timeline}");
        }
        ReceiveEvent::Stored(log) => println!(
            "{now} stored {} to {} on timeline {}: {} in {}",
            log.start,
            log.end,
            log.timeline,
            output::bytes(log.end.bytes_since(log.start)),
            output::bytes(log.stored_bytes)
        ),
        // An idle server says so every few minutes.
        ReceiveEvent::Marked(_) => {}
        ReceiveEvent::NotSummarised(error) => {
            let error = anyhow::Error::from(error);
            eprintln!("{now} warning: log is stored without a summary: {error:#}");
        }
        ReceiveEvent::Gap(gap) => eprintln!(
            "{now} GAP: log from {} to {} on timeline {} is lost: {}\n\
             Points in it cannot be restored. Take a backup now: everpoint backup",
            gap.from, gap.to, gap.timeline, gap.reason
        ),
        ReceiveEvent::SlotMade { slot } => {
            eprintln!("{now} made replication slot `{slot}`, which was not there or had lost log");
        }
        ReceiveEvent::Waiting { error, pause } => {
            let error = anyhow::Error::from(error);
            eprintln!(
                "{now} {error:#}; trying again in {:.1} s",
                pause.as_secs_f64()
            );
        }
        ReceiveEvent::NewTimeline {
            timeline,
            switch_at,
        } => {
            println!("{now} the server went on to timeline {timeline} at {switch_at}");
        }
    }
}

pub async fn push(repository: &Repository, args: &Push) -> anyhow::Result<Exit> {
    let (record, _) = known(repository, &args.name).await?;
    match push_file(repository, &args.name, &record, &args.path).await? {
        Pushed::Stored(None) | Pushed::Known => {}
        Pushed::Stored(Some(error)) => {
            let error = anyhow::Error::from(error);
            eprintln!("warning: stored without a summary: {error:#}");
        }
        Pushed::NotNeeded => {
            eprintln!(
                "{} is not needed for restores and was not stored",
                args.path.display()
            );
        }
    }
    Ok(Exit::Success)
}

pub async fn summarize(
    repository: &Repository,
    global: &Global,
    args: &Summarize,
) -> anyhow::Result<Exit> {
    let (record, _) = known(repository, &args.name).await?;
    let context = SummaryContext::new(repository, &args.name, &record);
    let extent = match args.rebuild {
        true => Extent::All,
        false => Extent::Missing,
    };
    let from = args.from.unwrap_or(Lsn::INVALID);
    let rebuilt = rebuild(&context, extent, from, &say_rebuild).await?;
    output::one(global.output, &rebuilt, || rebuilt_text(&rebuilt))?;
    Ok(match rebuilt.skipped {
        0 => Exit::Success,
        _ => Exit::Damage,
    })
}

fn say_rebuild(event: RebuildEvent) {
    match event {
        RebuildEvent::Unusable(event) => {
            if let Some(text) = summary_event(&event) {
                eprintln!("{text}");
            }
        }
        RebuildEvent::Skipped {
            timeline,
            from,
            to,
            error,
        } => {
            let error = anyhow::Error::from(error);
            eprintln!(
                "log from {from} to {to} on timeline {timeline} cannot be summarised: {error:#}"
            );
        }
    }
}

/// What is amiss with stored summaries, for a person; nothing when it is only that the last log has none yet.
pub(super) fn summary_event(event: &SummaryEvent) -> Option<String> {
    event.text()
}

fn rebuilt_text(rebuilt: &Rebuilt) -> String {
    format!(
        "{} summaries made, {} of log in {}; {} sound ones kept, {} deleted",
        rebuilt.made,
        output::bytes(rebuilt.log_bytes),
        output::bytes(rebuilt.stored_bytes),
        rebuilt.kept,
        rebuilt.deleted
    )
}
