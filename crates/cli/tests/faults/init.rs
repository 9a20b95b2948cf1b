//! `everpoint init`, and how a repository is opened.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use anyhow::Result;

use crate::support::{Everpoint, Finished};

const PASSPHRASE: &str = "correct horse battery staple";

fn init_of(everpoint: &Everpoint) -> Result<Finished> {
    let mut command = everpoint.bare_command(["init"]);
    command.env("EVERPOINT_REPOSITORY", everpoint.repository());
    command.env("EVERPOINT_PASSPHRASE", PASSPHRASE);
    Finished::of(command)
}

fn list_with(everpoint: &Everpoint, variable: &str, secret: &str) -> Result<Finished> {
    let mut command = everpoint.bare_command(["instance", "list", "--output", "json"]);
    command.env("EVERPOINT_REPOSITORY", everpoint.repository());
    command.env(variable, secret);
    if variable == "EVERPOINT_RECOVERY_KEY" {
        command.arg("--recovery-key");
    }
    Finished::of(command)
}

#[test]
fn an_existing_repository_is_refused_and_stays_as_it_is() -> Result<()> {
    let everpoint = Everpoint::new()?;
    let before = everpoint.contents()?;
    init_of(&everpoint)?.expect(3).says("already");
    let other_key = everpoint.path("other-key");
    let mut command = everpoint.bare_command(["init", "--generate-key-file", "--key-file"]);
    command.arg(&other_key);
    command.env("EVERPOINT_REPOSITORY", everpoint.repository());
    Finished::of(command)?.expect(3).says("already");
    assert!(
        !other_key.exists(),
        "a key file that opens nothing was made"
    );
    assert_eq!(everpoint.contents()?, before);
    Ok(())
}

#[test]
fn a_folder_with_other_files_is_refused_and_stays_as_it_is() -> Result<()> {
    let everpoint = Everpoint::without_repository()?;
    let inner = everpoint.repository().join("letters");
    fs::create_dir_all(&inner)?;
    fs::write(inner.join("letter.txt"), "dear")?;
    let before = everpoint.contents()?;
    init_of(&everpoint)?.expect(3).says("letters/letter.txt");
    assert_eq!(everpoint.contents()?, before);
    // Opening says the same.
    list_with(&everpoint, "EVERPOINT_PASSPHRASE", PASSPHRASE)?
        .expect(3)
        .says("letters/letter.txt");
    assert_eq!(everpoint.contents()?, before);
    Ok(())
}

#[test]
fn a_repository_of_a_newer_format_is_refused_and_stays_as_it_is() -> Result<()> {
    let everpoint = Everpoint::new()?;
    let marker = everpoint.repository().join("everpoint.json");
    let text = fs::read_to_string(&marker)?;
    let newer = text.replace("\"version\": 1", "\"version\": 2");
    assert_ne!(newer, text);
    fs::write(&marker, newer)?;
    let before = everpoint.contents()?;
    init_of(&everpoint)?.expect(3).says("format 2");
    for command in [
        &["instance", "list"][..],
        &["verify"],
        &["backup", "main"],
        &["expire", "main", "--retention-days", "7"],
    ] {
        let refused = everpoint.run(command)?.expect(3);
        refused.says("format 2").says("newer");
    }
    assert_eq!(everpoint.contents()?, before);
    Ok(())
}

#[test]
fn no_repository_is_made_by_a_command_that_misses_one() -> Result<()> {
    let everpoint = Everpoint::without_repository()?;
    fs::create_dir(everpoint.repository())?;
    fs::write(everpoint.key_file(), [7; 32])?;
    let missing = everpoint.run(["instance", "list"])?.expect(3);
    missing.says("everpoint init");
    assert_eq!(everpoint.objects("")?, Vec::<String>::new());
    Ok(())
}

#[test]
fn a_passphrase_from_the_environment_makes_and_opens_a_repository() -> Result<()> {
    let everpoint = Everpoint::without_repository()?;
    init_of(&everpoint)?.expect(0).says("Recovery key");
    list_with(&everpoint, "EVERPOINT_PASSPHRASE", PASSPHRASE)?.expect(0);
    let wrong = list_with(
        &everpoint,
        "EVERPOINT_PASSPHRASE",
        "correct horse battery stable",
    )?;
    wrong.expect(3).says("passphrase");
    Ok(())
}

#[test]
fn a_short_passphrase_or_key_file_makes_no_repository() -> Result<()> {
    let everpoint = Everpoint::without_repository()?;
    let mut command = everpoint.bare_command(["init"]);
    command.env("EVERPOINT_REPOSITORY", everpoint.repository());
    command.env("EVERPOINT_PASSPHRASE", "too short");
    Finished::of(command)?.expect(3).says("at least 12");
    fs::write(everpoint.key_file(), "short")?;
    everpoint.run(["init"])?.expect(3).says("at least 32");
    assert_eq!(everpoint.objects("")?, Vec::<String>::new());
    Ok(())
}

#[test]
fn without_secret_and_terminal_the_error_says_how_to_give_one() -> Result<()> {
    let everpoint = Everpoint::new()?;
    let recovery = ["--recovery-key", "verify"];
    for arguments in [&["init"][..], &["instance", "list"], &["verify"], &recovery] {
        // In a session of its own a program has no terminal, even where the test has one.
        let call = everpoint.bare_command(arguments);
        let mut command = Command::new("setsid");
        command
            .arg("--wait")
            .arg(call.get_program())
            .args(arguments);
        for (name, value) in call.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let place = if arguments == ["init"] {
            "new"
        } else {
            "repository"
        };
        command.env("EVERPOINT_REPOSITORY", everpoint.path(place));
        let failed = Finished::of(command)?.expect(3);
        match arguments.contains(&"--recovery-key") {
            true => failed.says("EVERPOINT_RECOVERY_KEY"),
            false => failed.says("--key-file").says("EVERPOINT_PASSPHRASE"),
        };
    }
    Ok(())
}

#[test]
fn a_generated_key_file_is_private_and_never_overwritten() -> Result<()> {
    let everpoint = Everpoint::new()?;
    let mode = fs::metadata(everpoint.key_file())?.permissions().mode();
    assert_eq!(mode & 0o7777, 0o600, "{mode:o}");
    let key = fs::read(everpoint.key_file())?;
    let mut command = everpoint.bare_command(["init", "--generate-key-file"]);
    command.env("EVERPOINT_REPOSITORY", everpoint.path("second"));
    command.env("EVERPOINT_KEY_FILE", everpoint.key_file());
    let refused = Finished::of(command)?.expect(3);
    refused.says(&everpoint.key_file().display().to_string());
    assert_eq!(fs::read(everpoint.key_file())?, key);
    assert!(!everpoint.path("second").join("everpoint.json").exists());
    everpoint.succeed(["instance", "list"])?;
    Ok(())
}

#[test]
fn the_recovery_key_opens_what_it_was_printed_for() -> Result<()> {
    let everpoint = Everpoint::new()?;
    let key = &everpoint.recovery_key;
    list_with(&everpoint, "EVERPOINT_RECOVERY_KEY", key)?.expect(0);
    // As a person types it from paper.
    let typed = key.to_lowercase().replace('-', " ");
    list_with(&everpoint, "EVERPOINT_RECOVERY_KEY", &typed)?.expect(0);
    Ok(())
}

#[test]
fn wrong_secrets_are_refused() -> Result<()> {
    let everpoint = Everpoint::new()?;
    let other = Everpoint::new()?;
    let before = everpoint.contents()?;
    let wrong = list_with(&everpoint, "EVERPOINT_RECOVERY_KEY", &other.recovery_key)?;
    wrong.expect(3).says("recovery key");
    let last = with_another_end(&everpoint.recovery_key);
    let mistyped = list_with(&everpoint, "EVERPOINT_RECOVERY_KEY", &last)?;
    mistyped.expect(3).says("mistyped");
    let key_file = other.key_file().display().to_string();
    list_with(&everpoint, "EVERPOINT_KEY_FILE", &key_file)?
        .expect(3)
        .says("key file");
    let passphrase = list_with(&everpoint, "EVERPOINT_PASSPHRASE", PASSPHRASE)?;
    passphrase.expect(3).says("passphrase");
    assert_eq!(everpoint.contents()?, before);
    Ok(())
}

fn with_another_end(text: &str) -> String {
    let (rest, last) = text.split_at(text.len() - 1);
    format!("{rest}{}", if last == "A" { "B" } else { "A" })
}
