//! `everpoint verify`.

use everpoint_engine::{
    progress::Progress,
    verify::{self, Damage, Depth, Report},
};
use everpoint_repository::{InstanceName, Repository};

use super::chosen;
use crate::{
    args::{Global, Verify},
    exit::Exit,
    output,
    progress::Display,
};

pub async fn run(repository: &Repository, global: &Global, args: &Verify) -> anyhow::Result<Exit> {
    let depth = if args.full {
        Depth::Contents
    } else {
        Depth::Presence
    };
    let progress = Progress::default();
    let display = Display::new(&progress);
    let mut total = verify::verify_keys(repository).await?;
    for name in named(repository, args.name.as_ref()).await? {
        for report in [
            verify::verify(repository, &name, depth, &progress).await?,
            verify::verify_copies(repository, &name, depth, &progress).await?,
        ] {
            total.objects += report.objects;
            total.verified_bytes += report.verified_bytes;
            total.damage.extend(report.damage);
        }
    }
    drop(display);
    output::one(global.output, &total, || text(&total, depth))?;
    Ok(if total.damage.is_empty() {
        Exit::Success
    } else {
        Exit::Damage
    })
}

/// The instances asked for. One whose description is damaged is verified, too.
async fn named(
    repository: &Repository,
    name: Option<&InstanceName>,
) -> anyhow::Result<Vec<InstanceName>> {
    let mut names = repository.instances().await?;
    names.extend(repository.instances_with_copies().await?);
    names.sort();
    names.dedup();
    match name {
        Some(name) if !names.contains(name) => chosen(repository, Some(name)).await,
        Some(name) => Ok(vec![name.clone()]),
        None => Ok(names),
    }
}

fn text(report: &Report, depth: Depth) -> String {
    let looked = match depth {
        Depth::Presence => "present, sizes and indexes right".to_owned(),
        Depth::Contents => {
            format!(
                "present, {} of contents compared",
                output::bytes(report.verified_bytes)
            )
        }
    };
    if report.damage.is_empty() {
        return format!("{} objects {looked}: no damage", report.objects);
    }
    let mut text = format!(
        "{} objects looked at: {} DAMAGED\n",
        report.objects,
        report.damage.len()
    );
    for damage in &report.damage {
        text.push_str(&describe(damage));
    }
    text
}

fn describe(damage: &Damage) -> String {
    let mut text = format!("\n{}\n  {}\n", damage.object, damage.what);
    if !damage.backups.is_empty() {
        text.push_str(&format!(
            "  needed by backup {}\n",
            damage.backups.join(", ")
        ));
    }
    for file in &damage.files {
        text.push_str(&format!("  affects {file}\n"));
    }
    text
}
