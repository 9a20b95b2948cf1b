//! Exit codes, and how an error is shown.

use std::{error::Error, process::ExitCode};

use everpoint_api::client::ClientError;
use everpoint_engine::{
    backup::BackupError,
    database::{DatabasePlanError, choose::ChooseError, into_server::IntoServerError},
    history::HistoryError,
    long_term::LongTermError,
    restore::{RestoreError, target::TargetError},
    transplant::MoveError,
};
use everpoint_instance::lock::LockError;
use everpoint_repository::{RepositoryError, keys::KeyError};

/// What the process ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It was done.
    Success,
    /// It was begun and failed.
    Failed,
    /// Refused before anything was done.
    Refused,
    /// It was done, and damage was found.
    Damage,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Success => 0,
            Exit::Failed => 1,
            // 2 is wrong usage, by clap.
            Exit::Refused => 3,
            Exit::Damage => 4,
        })
    }
}

/// A refusal of the command itself.
#[derive(Debug)]
pub struct Refusal(pub String);

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for Refusal {}

/// The code an error ends with.
pub fn code_of(error: &anyhow::Error) -> Exit {
    if error.chain().any(is_refusal) {
        Exit::Refused
    } else {
        Exit::Failed
    }
}

/// Errors that only pass another on do not show it in the chain, so they are looked into.
fn is_refusal(cause: &(dyn Error + 'static)) -> bool {
    if let Some(error) = cause.downcast_ref::<BackupError>() {
        return match error {
            BackupError::OtherCluster { .. } => true,
            BackupError::Lock(error) => is_refusal(error),
            BackupError::Repository(error) => is_refusal(error),
            _ => false,
        };
    }
    if let Some(error) = cause.downcast_ref::<RepositoryError>() {
        return match error {
            RepositoryError::None { .. }
            | RepositoryError::Exists { .. }
            | RepositoryError::Foreign { .. }
            | RepositoryError::Newer { .. }
            | RepositoryError::UnknownInstance { .. } => true,
            RepositoryError::Key(error) => is_refusal(error),
            _ => false,
        };
    }
    if let Some(error) = cause.downcast_ref::<HistoryError>() {
        return match error {
            HistoryError::Summaries(_) => false,
            HistoryError::Repository(error) => is_refusal(error),
            HistoryError::NoLog { .. }
            | HistoryError::UnknownTimeline { .. }
            | HistoryError::UnknownEvent { .. }
            | HistoryError::NoBackupBefore { .. }
            | HistoryError::LogMissing { .. } => true,
        };
    }
    if let Some(error) = cause.downcast_ref::<RestoreError>() {
        return match error {
            RestoreError::Refused(_) => true,
            // A log or a repository that is damaged is no fault of the target.
            RestoreError::Target(TargetError::Log(_) | TargetError::Summaries(_)) => false,
            RestoreError::Target(TargetError::Repository(error))
            | RestoreError::Repository(error) => is_refusal(error),
            RestoreError::Target(_) => true,
            _ => false,
        };
    }
    if let Some(error) = cause.downcast_ref::<ClientError>() {
        return match error {
            ClientError::Failed(failed) => failed.is_refusal(),
            ClientError::Address { .. }
            | ClientError::Authority { .. }
            | ClientError::NoAuthority
            | ClientError::NotSignedIn
            | ClientError::SignIn { .. } => true,
            _ => false,
        };
    }
    if let Some(error) = cause.downcast_ref::<MoveError>() {
        return matches!(error, MoveError::Refused(_));
    }
    if let Some(error) = cause.downcast_ref::<IntoServerError>() {
        return match error {
            IntoServerError::Binaries(_) => true,
            IntoServerError::Move(error) => is_refusal(error),
            _ => false,
        };
    }
    if let Some(error) = cause.downcast_ref::<DatabasePlanError>() {
        return match error {
            DatabasePlanError::Choose(error) => is_refusal(error),
            DatabasePlanError::Restore(error) => is_refusal(error),
            DatabasePlanError::Cage(_) => true,
        };
    }
    if let Some(error) = cause.downcast_ref::<LongTermError>() {
        return match error {
            LongTermError::NoFullBackup { .. }
            | LongTermError::NotFull { .. }
            | LongTermError::NoDatabase { .. }
            | LongTermError::Unknown { .. }
            | LongTermError::BeingDeleted { .. }
            | LongTermError::Held { .. } => true,
            LongTermError::Repository(error) => is_refusal(error),
            LongTermError::Stored(error) => is_refusal(error),
            _ => false,
        };
    }
    if let Some(error) = cause.downcast_ref::<ChooseError>() {
        return match error {
            ChooseError::Stored(error) => is_refusal(error),
            ChooseError::Repository(error) => is_refusal(error),
            ChooseError::Events(_) => false,
            _ => true,
        };
    }
    cause.is::<Refusal>()
        || matches!(
            cause.downcast_ref::<LockError>(),
            Some(LockError::Held { .. } | LockError::Contended { .. })
        )
        || matches!(
            cause.downcast_ref::<KeyError>(),
            Some(KeyError::Wrong { .. } | KeyError::Weak { .. } | KeyError::MalformedRecoveryKey)
        )
}

/// Shows an error and what caused it, on standard error.
pub fn print(error: &anyhow::Error) {
    let mut shown = error.to_string();
    eprintln!("error: {shown}");
    for cause in error.chain().skip(1) {
        let text = cause.to_string();
        if !shown.contains(&text) {
            eprintln!("  because: {text}");
            shown = text;
        }
    }
}

#[cfg(test)]
mod tests {
    use everpoint_engine::restore::target::{Point, Target};
    use everpoint_pgformat::Lsn;
    use everpoint_repository::StoreError;

    use super::*;

    #[test]
    fn unreachable_targets_are_refused_and_damage_on_the_way_to_them_is_a_failure() {
        let latest = Point {
            time: None,
            lsn: Lsn::new(1),
        };
        let target = Target::Latest;
        let too_late = TargetError::TooLate { target, latest };
        let missing = StoreError::Missing {
            path: "log".to_owned(),
        };
        let damaged = TargetError::Repository(RepositoryError::Store(missing));
        for (error, code) in [(too_late, Exit::Refused), (damaged, Exit::Failed)] {
            let error = anyhow::Error::from(RestoreError::from(error));
            assert_eq!(code_of(&error), code, "{error}");
        }
    }
}
