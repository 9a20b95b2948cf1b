//! Why a restore failed, by the published codes. What a client is told is the whole chain of causes.

use everpoint_engine::{
    database::{
        DatabasePlanError, choose::ChooseError, into_server::IntoServerError,
        server::ScratchServerError,
    },
    restore::{
        RestoreError, pack_reader::PackReadError, refusal::RefusalError, target::TargetError,
        writer::WriteError,
    },
    summary::SummaryReadError,
    transplant::{MoveError, Refusal},
};
use everpoint_repository::{RepositoryError, StoreError, object::ObjectError};

use crate::service::operations::Failure;

const NO_ROOM: &str = "NoMoreSpaceInManagedInstance";
const DAMAGED: &str = "FullBackupDamaged";
const GAP: &str = "BrokenRestorePlanGapInLogBackups";
const OTHER: &str = "RestoreFailed";

/// No plan can be made.
pub(super) fn of_plan(error: &DatabasePlanError) -> Failure {
    let code = match error {
        DatabasePlanError::Choose(error) => choice(error),
        DatabasePlanError::Restore(error) => restore(error),
        DatabasePlanError::Cage(_) => OTHER,
    };
    failure(code, error)
}

/// The database cannot be told.
pub(super) fn of_choice(error: &ChooseError) -> Failure {
    failure(choice(error), error)
}

/// The restore itself.
pub(super) fn of_move(error: &IntoServerError) -> Failure {
    let code = match error {
        IntoServerError::Connect(_) | IntoServerError::Facts(_) => "InstanceNotReachable",
        IntoServerError::Recover(error) => match error {
            ScratchServerError::Restore(error) => restore(error),
            ScratchServerError::NoRoomLeft(_) => NO_ROOM,
            ScratchServerError::Cancelled => "OperationCancelled",
            _ => OTHER,
        },
        IntoServerError::Move(error) => moving(error),
        _ => OTHER,
    };
    failure(code, error)
}

fn failure(code: &'static str, error: &dyn std::error::Error) -> Failure {
    Failure {
        code,
        text: crate::chain(error),
    }
}

fn choice(error: &ChooseError) -> &'static str {
    match error {
        ChooseError::NoDatabase { .. } | ChooseError::Reserved { .. } => {
            "RestoreSourceDatabaseNotFound"
        }
        ChooseError::NotDeleted { .. } | ChooseError::SeveralDeleted { .. } => "BackupSetNotFound",
        ChooseError::OutsideLife { .. } => "PitrPointInTimeInvalid",
        ChooseError::Target(error) => target(error),
        ChooseError::Events(error) => summaries(error),
        ChooseError::Stored(error) => restore(error),
        ChooseError::Repository(error) => repository(error),
    }
}

fn target(error: &TargetError) -> &'static str {
    match error {
        TargetError::NoBackup { .. } => "FullBackupNotFound",
        TargetError::TooEarly { .. } | TargetError::TooLate { .. } => "PitrPointInTimeInvalid",
        TargetError::InGap { .. } => GAP,
        TargetError::UnknownRestorePoint { .. } | TargetError::UnknownTimeline { .. } => {
            "BackupSetNotFound"
        }
        TargetError::Repository(error) => repository(error),
        TargetError::Log(_) => OTHER,
        TargetError::Summaries(error) => summaries(error),
    }
}

fn summaries(error: &SummaryReadError) -> &'static str {
    match error {
        SummaryReadError::Log(_) => GAP,
        SummaryReadError::Repository(error) => repository(error),
        SummaryReadError::Undecodable { .. } => OTHER,
    }
}

fn restore(error: &RestoreError) -> &'static str {
    match error {
        RestoreError::Target(error) => target(error),
        RestoreError::Refused(RefusalError::NoSpace { .. }) => NO_ROOM,
        RestoreError::Repository(error) => repository(error),
        RestoreError::Write(WriteError::Read(error)) => match error {
            PackReadError::WrongContents { .. } => "CorruptedPagesInBackupSet",
            PackReadError::UnknownPack { .. } => DAMAGED,
            PackReadError::Repository(error) => repository(error),
        },
        RestoreError::Damaged { .. } => DAMAGED,
        RestoreError::Write(WriteError::Target { source, .. })
        | RestoreError::Directory { source, .. } => full(source),
        RestoreError::MissingBase(_) => "FullBackupNotFound",
        RestoreError::Log(_) => GAP,
        RestoreError::Cancelled => "OperationCancelled",
        _ => OTHER,
    }
}

fn full(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => NO_ROOM,
        _ => OTHER,
    }
}

fn repository(error: &RepositoryError) -> &'static str {
    match error {
        RepositoryError::UnknownBackup { .. } => "FullBackupNotFound",
        RepositoryError::UnknownInstance { .. } => "RestoreSourceDatabaseNotFound",
        RepositoryError::Store(StoreError::Missing { .. })
        | RepositoryError::Object(
            ObjectError::Damaged { .. }
            | ObjectError::Frame { .. }
            | ObjectError::UnknownDataKey { .. },
        )
        | RepositoryError::Frame(_) => DAMAGED,
        _ => OTHER,
    }
}

fn moving(error: &MoveError) -> &'static str {
    match error {
        MoveError::Connect { .. } | MoveError::Lost { .. } => "InstanceNotReachable",
        MoveError::NameTaken { .. } => "ManagedDatabaseNameInUse",
        MoveError::Cancelled => "OperationCancelled",
        MoveError::Left { error, .. } => moving(error),
        MoveError::Refused(refusals) => refusals
            .0
            .iter()
            .find_map(|refusal| match refusal {
                Refusal::NameTaken { .. } => Some("ManagedDatabaseNameInUse"),
                Refusal::NoRoom { .. } => Some(NO_ROOM),
                _ => None,
            })
            .unwrap_or("RestoreRefused"),
        // SQLSTATE class 53: the server is out of something, its disk first of all.
        MoveError::NoRoomLeft(_) => NO_ROOM,
        MoveError::Statement { message, .. } if message.code() == "53100" => NO_ROOM,
        _ => OTHER,
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use everpoint_engine::{
        restore::target::{Point, Target},
        transplant::Refusals,
    };
    use everpoint_pgformat::{ByteCount, Lsn};

    use super::*;

    #[test]
    fn what_stands_in_the_way_of_a_restore_has_its_published_code() {
        let point = Point {
            time: None,
            lsn: Lsn::new(1),
        };
        let target = Target::Latest;
        let late = TargetError::TooLate {
            target: target.clone(),
            latest: point,
        };
        let gap = TargetError::InGap {
            target,
            lost_from: Lsn::new(1),
            before: point,
            after: point,
        };
        let no_space = RefusalError::NoSpace {
            path: PathBuf::from("/scratch"),
            available_bytes: 1,
            needed_bytes: 2,
        };
        let wrong = PackReadError::WrongContents {
            pack: "a".to_owned(),
            path: "base/5/1".to_owned(),
        };
        let damaged = ObjectError::Damaged {
            path: "manifest".to_owned(),
            what: "its end",
        };
        for (error, code) in [
            (RestoreError::Target(late), "PitrPointInTimeInvalid"),
            (RestoreError::Target(gap), GAP),
            (RestoreError::Refused(no_space), NO_ROOM),
            (
                RestoreError::Write(wrong.into()),
                "CorruptedPagesInBackupSet",
            ),
            (RestoreError::Repository(damaged.into()), DAMAGED),
        ] {
            let found = of_plan(&error.into());
            assert_eq!(found.code, code, "{}", found.text);
        }
        let no_room = Refusal::NoRoom {
            tablespace: "pg_default".to_owned(),
            available: ByteCount::new(1),
            needed: ByteCount::new(2),
        };
        let error = MoveError::Refused(Refusals(vec![no_room]));
        assert_eq!(of_move(&error.into()).code, NO_ROOM);
    }
}
