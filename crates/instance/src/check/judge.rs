//! Judging facts: from values to outcomes.

use everpoint_pgformat::{SystemIdentifier, control::Checksums, ids::BLOCK_SIZE};
use jiff::{SignedDuration, Timestamp};

use super::{Outcome, WalMode};
use crate::facts::{ServerFacts, ServerRole, WalLevel};

/// A difference of clocks that is said.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_secs(2);

/// What `pg_replication_slots` says of a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SlotState {
    pub(super) slot_type: String,
    pub(super) active: bool,
    pub(super) wal_status: Option<String>,
    pub(super) reserved: bool,
}

pub(super) fn same_cluster(facts: &ServerFacts, identified: SystemIdentifier) -> Outcome {
    if facts.system_identifier == identified {
        return Outcome::ok(format!("system identifier {identified}"));
    }
    Outcome::failed(
        format!(
            "the SQL session is of cluster {} and the replication connection of {identified}",
            facts.system_identifier
        ),
        "Connect to the server itself and not through a pooler or a name of several servers",
    )
}

pub(super) fn wal_level(facts: &ServerFacts) -> Outcome {
    match facts.wal_level {
        WalLevel::Replica => Outcome::ok("replica"),
        WalLevel::Logical => Outcome::ok("logical"),
        WalLevel::Minimal => Outcome::failed(
            "wal_level is minimal, which is too little to recover from a backup",
            "ALTER SYSTEM SET wal_level = 'replica'; and restart the server",
        ),
    }
}

pub(super) fn slot(facts: &ServerFacts, mode: &WalMode, state: Option<&SlotState>) -> Outcome {
    let WalMode::Slot(name) = mode else {
        return Outcome::warning(
            format!(
                "no slot is used, so WAL that the receiver misses for long is lost; {} MB are kept (wal_keep_size)",
                facts.wal_keep_size_mb
            ),
            "Use a replication slot",
        );
    };
    let Some(state) = state else {
        return if facts.used_replication_slots < facts.max_replication_slots {
            Outcome::ok(format!(
                "{} of {} are used",
                facts.used_replication_slots, facts.max_replication_slots
            ))
        } else {
            Outcome::failed(
                format!(
                    "all {} replication slots are taken",
                    facts.max_replication_slots
                ),
                format!(
                    "ALTER SYSTEM SET max_replication_slots = {}; and restart the server",
                    facts.max_replication_slots.saturating_add(5)
                ),
            )
        };
    };
    if state.slot_type != "physical" {
        return Outcome::failed(
            format!("replication slot `{name}` is a logical one"),
            "Choose another name for the slot",
        );
    }
    if state.wal_status.as_deref() == Some("lost") {
        return Outcome::failed(
            format!("WAL that replication slot `{name}` held back is lost"),
            format!(
                "SELECT pg_drop_replication_slot('{name}'); start the receiver again, and take a full backup"
            ),
        );
    }
    if state.wal_status.as_deref() == Some("unreserved") {
        return Outcome::warning(
            format!(
                "replication slot `{name}` is about to lose WAL: it holds back more than max_slot_wal_keep_size"
            ),
            "Let the receiver catch up, or raise max_slot_wal_keep_size now",
        );
    }
    Outcome::ok(match (state.active, state.reserved) {
        (true, _) => format!("`{name}` is being received from"),
        (false, true) => format!("`{name}` is there, and nobody receives from it"),
        (false, false) => format!("`{name}` is there, and was never used"),
    })
}

pub(super) fn wal_senders(facts: &ServerFacts, slot: Option<&SlotState>) -> Outcome {
    let found = format!(
        "{} of {} are used",
        facts.used_wal_senders, facts.max_wal_senders
    );
    let received = slot.is_some_and(|slot| slot.active);
    if received || facts.used_wal_senders < facts.max_wal_senders {
        return Outcome::ok(found);
    }
    Outcome::failed(
        format!("no replication connection is free: {found}"),
        format!(
            "ALTER SYSTEM SET max_wal_senders = {}; and restart the server",
            facts.max_wal_senders.saturating_add(5)
        ),
    )
}

pub(super) fn slot_limit(facts: &ServerFacts, mode: &WalMode) -> Outcome {
    match (mode, facts.max_slot_wal_keep_size_mb) {
        (WalMode::NoSlot, _) => Outcome::ok("no slot holds WAL back"),
        (WalMode::Slot(_), Some(limit_mb)) => {
            Outcome::ok(format!("slots hold back {limit_mb} MB at most"))
        }
        (WalMode::Slot(_), None) => Outcome::warning(
            "when the receiver stands still, WAL fills the server's disk without a limit (max_slot_wal_keep_size is -1)",
            "ALTER SYSTEM SET max_slot_wal_keep_size = '50GB'; SELECT pg_reload_conf(); with a size that the disk of pg_wal has to spare",
        ),
    }
}

pub(super) fn full_page_writes(facts: &ServerFacts) -> Outcome {
    let mend = "ALTER SYSTEM SET full_page_writes = on; SELECT pg_reload_conf();";
    match (facts.full_page_writes, facts.role) {
        (true, _) => Outcome::ok("on"),
        (false, ServerRole::Primary) => Outcome::warning(
            "off: a crash can damage pages beyond repair. While a backup runs, the server writes full pages all the same",
            mend,
        ),
        (false, ServerRole::Standby) => Outcome::warning(
            "off here; it must be on in the primary, or no backup can be taken from this standby",
            mend,
        ),
    }
}

pub(super) fn checksums(facts: &ServerFacts) -> Outcome {
    match facts.checksums {
        Checksums::On => Outcome::ok("on"),
        Checksums::Off => Outcome::warning(
            "off: damage of the disk is backed up unnoticed",
            format!(
                "Stop the server, pg_checksums --enable --pgdata={}, start it again, and take a full backup",
                facts.data_directory
            ),
        ),
    }
}

pub(super) fn block_sizes(facts: &ServerFacts) -> Outcome {
    let usual = u32::try_from(BLOCK_SIZE).unwrap_or(u32::MAX);
    if facts.block_size_bytes == usual && facts.wal_block_size_bytes == usual {
        return Outcome::ok(format!(
            "{usual} bytes, WAL segments of {} MiB",
            facts.segment_size.bytes() >> 20
        ));
    }
    Outcome::failed(
        format!(
            "the server was built with blocks of {} bytes and WAL blocks of {}",
            facts.block_size_bytes, facts.wal_block_size_bytes
        ),
        format!("Only servers built with {usual} for both are supported"),
    )
}

pub(super) fn clock(server: Timestamp, ours: Timestamp) -> Outcome {
    let difference = server.duration_since(ours);
    if difference.abs() <= CLOCK_TOLERANCE {
        return Outcome::ok("agrees with this machine's");
    }
    let (which, by) = match difference.is_positive() {
        true => ("ahead of", difference),
        false => ("behind", -difference),
    };
    Outcome::warning(
        format!(
            "the server's clock is {by:#} {which} this machine's; times of restores are the server's"
        ),
        "Let both machines follow a time server",
    )
}
