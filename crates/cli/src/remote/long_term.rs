//! Long-term copies and policies of a service.

use everpoint_api::{
    Resource,
    discovery::Subscription,
    retention::{LongTermBackupProperties, LongTermProperties, LongTermUpdate, LongTermWish, NAME},
};
use everpoint_repository::CopyId;

use super::{
    databases::{database_path, time},
    login::Session,
    operations::wait,
};
use crate::{
    args::{
        Global,
        database::DatabaseName,
        long_term::{ListArgs, LongTermCommand},
        remote::{LongTermPolicyCommand, LongTermSet},
    },
    exit::{Exit, Refusal},
    output,
};

/// A long-term backup, as the service shows it.
pub type Copy = Resource<LongTermBackupProperties>;

pub async fn run(
    session: &Session,
    global: &Global,
    command: LongTermCommand,
) -> anyhow::Result<Exit> {
    match command {
        LongTermCommand::List(args) => list(session, global, &args).await?,
        LongTermCommand::Hold(args) => {
            change(session, args.id, "setLegalHoldImmutability").await?;
            eprintln!("copy {} is held", args.id);
        }
        LongTermCommand::Release(args) => {
            change(session, args.id, "removeLegalHoldImmutability").await?;
            eprintln!("copy {} is not held", args.id);
        }
        LongTermCommand::Delete(args) => {
            let copy = find(session, args.id).await?;
            let what = format!(
                "copy {} of `{}/{}`, as of {}",
                args.id,
                copy.properties.managed_instance_name,
                copy.properties.database_name,
                time(Some(copy.properties.backup_time))
            );
            if args.dry_run {
                eprintln!("would delete {what}");
                return Ok(Exit::Success);
            }
            let begun = session.client.delete(&copy.id).await?;
            wait(session, begun).await?;
            eprintln!("deleted {what}");
        }
        LongTermCommand::Copy(_) => {
            let text = "the service makes copies by the databases' policies (`everpoint retention long-term set`); \
                        one by hand is made without --server";
            return Err(Refusal(text.to_owned()).into());
        }
    }
    Ok(Exit::Success)
}

async fn all(session: &Session) -> anyhow::Result<Vec<Copy>> {
    let location = session.groups.first();
    let location = location.and_then(|group| group.location.as_deref());
    let location = location.unwrap_or_default();
    let mut all = Vec::new();
    for Subscription { id, .. } in &session.subscriptions {
        let path = format!(
            "{id}/providers/Microsoft.Sql/locations/{location}/longTermRetentionManagedInstanceBackups"
        );
        all.extend(session.client.list(&path).await?);
    }
    Ok(all)
}

/// The copy of an identifier.
///
/// # Errors
/// When there is none that one may see.
pub async fn find(session: &Session, id: CopyId) -> anyhow::Result<Copy> {
    let is_it = |copy: &Copy| {
        let own = copy.name.split(';').next().unwrap_or_default();
        own.eq_ignore_ascii_case(&id.to_string())
    };
    all(session).await?.into_iter().find(is_it).ok_or_else(|| {
        let text = format!(
            "there is no long-term copy {id} that you may see. `everpoint long-term list` lists those there are"
        );
        Refusal(text).into()
    })
}

async fn change(session: &Session, id: CopyId, what: &str) -> anyhow::Result<()> {
    let copy = find(session, id).await?;
    let path = format!("{}/{what}", copy.id);
    let begun = session.client.post(&path).await?;
    wait(session, begun).await
}

async fn list(session: &Session, global: &Global, args: &ListArgs) -> anyhow::Result<()> {
    let mut rows = all(session).await?;
    if let Some(whose) = &args.whose {
        rows.retain(|row| {
            let properties = &row.properties;
            let of_it = whose.database.as_ref();
            properties.managed_instance_name == whose.instance.as_str()
                && of_it.is_none_or(|name| properties.database_name == *name)
        });
    }
    let header = ["COPY", "INSTANCE", "DATABASE", "BACKUP TIME", "EXPIRES"];
    let empty = "there are no long-term copies that you may see";
    output::list(global.output, &rows, &header, cells, empty)?;
    Ok(())
}

fn cells(row: &Copy) -> Vec<String> {
    let properties = &row.properties;
    let expires = match properties.backup_expiration_time {
        _ if properties.legal_hold_immutability == "Enabled" => "held".to_owned(),
        None => "never".to_owned(),
        until => time(until),
    };
    let id = row.name.split(';').next().unwrap_or_default();
    vec![
        id.to_owned(),
        properties.managed_instance_name.clone(),
        properties.database_name.clone(),
        time(Some(properties.backup_time)),
        expires,
    ]
}

/// What is copied by itself.
pub async fn policy(
    session: &Session,
    global: &Global,
    command: LongTermPolicyCommand,
) -> anyhow::Result<()> {
    match command {
        LongTermPolicyCommand::Show(args) => {
            let path = policy_path(session, &args.name);
            let found: Resource<LongTermProperties> = session.client.get(&path).await?;
            output::one(global.output, &found.properties, || text(&found.properties))?;
        }
        LongTermPolicyCommand::Set(args) => {
            let path = policy_path(session, &args.name);
            let begun = session.client.put(&path, &wish(&args)).await?;
            wait(session, begun).await?;
            let found: Resource<LongTermProperties> = session.client.get(&path).await?;
            eprintln!("{}", text(&found.properties));
        }
    }
    Ok(())
}

fn policy_path(session: &Session, name: &DatabaseName) -> String {
    let database = database_path(session, name);
    format!("{database}/backupLongTermRetentionPolicies/{NAME}")
}

fn wish(args: &LongTermSet) -> LongTermUpdate {
    let period =
        |period: Option<everpoint_server::policy::Period>| period.map(|period| period.to_string());
    LongTermUpdate {
        properties: LongTermWish {
            weekly_retention: period(args.periods.weekly),
            monthly_retention: period(args.periods.monthly),
            yearly_retention: period(args.periods.yearly),
            week_of_year: args.week_of_year.map(i64::from),
        },
    }
}

fn text(policy: &LongTermProperties) -> String {
    let kept = |name: &str, period: &str| match period {
        "PT0S" => None,
        period => Some(format!("{name} copies for {period}")),
    };
    let yearly = format!("yearly (week {})", policy.week_of_year);
    let all = [
        kept("weekly", &policy.weekly_retention),
        kept("monthly", &policy.monthly_retention),
        kept(&yearly, &policy.yearly_retention),
    ];
    let all: Vec<String> = all.into_iter().flatten().collect();
    match all.is_empty() {
        true => "no long-term copies are made".to_owned(),
        false => all.join("\n"),
    }
}
